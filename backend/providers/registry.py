"""Which providers there are, and which of them can be used: those whose settings are there, and work done here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backend.config import Settings
from backend.core.catalog import ProviderFacts
from backend.providers import local, replicate
from backend.providers.base import Means, Provider

Build = Callable[[Settings, Means, ProviderFacts], Provider | None]

PROVIDERS: Mapping[str, Build] = {"replicate": replicate.build}


def offered(settings: Settings, means: Means, facts: Mapping[str, ProviderFacts]) -> dict[str, Provider]:
    """The accounts that have credentials, and the one that needs none, by their keys.

    Raises SettingsError naming the setting that is wrong.
    """
    built = [build(settings, means, facts[name]) for name, build in PROVIDERS.items()]
    built.append(local.build(means))
    return {provider.key: provider for provider in built if provider is not None}
