"""Make Replicate's account from the settings."""

from __future__ import annotations

from backend.config import Settings
from backend.core.catalog import ProviderFacts
from backend.core.errors import SettingsError
from backend.providers.base import Means, Provider
from backend.providers.replicate.api import Replicate


def build(settings: Settings, means: Means, facts: ProviderFacts) -> Provider | None:
    """Return the account of REPLICATE_API_KEY; None without one. Raises SettingsError."""
    if settings.replicate_api_key is None:
        return None
    try:
        return Replicate(
            means,
            facts,
            base_url=settings.replicate_base_url,
            token=settings.replicate_api_key.get_secret_value(),
            secrets=settings.webhook_secrets,
        )
    except SettingsError as error:
        raise SettingsError(f"REPLICATE_WEBHOOK_SECRET: {error.message}") from error
