"""Settings from the environment and from `.env`. Nothing else reads the environment.

Each value is trimmed, a blank one counts as not set, and one that cannot work is refused by name. The type of a field
says what its value may be.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, PrivateAttr, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from backend.config import sources, values
from backend.config.hosts import is_loopback, is_public
from backend.config.sources import EnvFileError, Variables
from backend.config.values import (
    DatabaseUrl,
    DataKey,
    HttpUrl,
    Network,
    Networks,
    Rate,
    RedisUrl,
    StorageUrl,
    Token,
    WebhookSecret,
)
from backend.logs import redact

__all__ = ["EnvFileError", "Network", "Settings", "is_loopback", "is_public"]


class Settings(BaseSettings):
    """Every setting, its default and its meaning (shown by `reelhook doctor`)."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: DatabaseUrl = Field("sqlite:///data/reelhook.db", description="where rows are kept")
    storage_url: StorageUrl = Field("file:data/media", description="where bytes are kept")
    redis_url: RedisUrl | None = Field(None, description="shared rate limits for several processes")
    base_url: HttpUrl | None = Field(None, description="where clients reach the service")
    ngrok_url: HttpUrl | None = Field(None, description="the public address, when it differs from BASE_URL")
    auth_mode: Literal["keys", "dev"] = Field("keys", description="dev: no key needed, loopback only")
    replicate_api_key: Token | None = Field(
        None,
        validation_alias=AliasChoices("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
        description="without it Replicate is not offered",
    )
    replicate_base_url: HttpUrl = Field("https://api.replicate.com/v1", description="Replicate's API")
    replicate_webhook_secret: WebhookSecret | None = Field(
        None, description="whsec_..., or several: any one verifies; asked from the API when it is not set"
    )
    image_rate_limit: Rate = Field("10/minute", description="image requests a key may make")
    video_rate_limit: Rate = Field("5/minute", description="video requests a key may make")
    webhook_allow_cidrs: Networks = Field("", description="private networks that asset and webhook URLs may reach")
    trusted_proxies: Networks = Field("", description="CIDRs whose X-Forwarded-For is believed")
    data_key: DataKey | None = Field(
        None, description="signs media URLs, 32 characters at least; made at first start, beside the database"
    )
    data_key_old: SecretStr | None = Field(
        None, description="keys of before, separated by commas: links they signed still work"
    )
    max_in_flight: int = Field(200, ge=1, le=10_000, description="predictions at one provider at a time")
    max_unfinished_per_client: int = Field(
        10_000, ge=1, le=10_000_000, description="generations a client may have unfinished"
    )
    max_asset_mb: int = Field(200, ge=1, le=5_000, description="the largest asset")
    max_output_mb: int = Field(2_000, ge=1, le=20_000, description="the largest output that is stored")
    max_client_gb: float = Field(
        50, gt=0, le=1_000_000, allow_inf_nan=False, description="what a client may keep here: files, texts, rows"
    )
    write_rate_limit: Rate = Field("300/minute", description="requests a key may make that change something")
    history_days: int = Field(
        90, ge=1, le=3650, description="how long events, received webhooks and the audit log are kept"
    )
    min_free_mb: int = Field(200, ge=0, le=10_000_000, description="free disk below which nothing new is accepted")

    _port: int = PrivateAttr(8000)

    def __init__(self, *, _env_file: str | Path | None = ".env", **given: Any) -> None:
        """Raises EnvFileError for a file that cannot be read as settings, ValidationError for a setting."""
        if _env_file is not None:
            # Before pydantic looks at it, which ignores one half of such files and dies of the other.
            sources.read_file(_env_file)
        super().__init__(_env_file=_env_file, **given)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in their order: what is given in code, then the environment, then `.env`."""
        file = dotenv_settings.env_file if isinstance(dotenv_settings, DotEnvSettingsSource) else None
        variables = sources.file_variables(file) if isinstance(file, str | Path) else {}
        # pydantic-settings tries them in this order, and takes the first value.
        return init_settings, Variables(settings_cls, os.environ), Variables(settings_cls, variables)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, given: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in given.items() if not values.is_blank(value)}

    @field_validator("*", mode="before")
    @classmethod
    def _is_clean(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name == "replicate_webhook_secret" and isinstance(value, str):
            value = re.sub(r"[\t\r\n]+", " ", value)  # several may stand on lines of their own
        return values.clean(value)

    @cached_property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets in REPLICATE_WEBHOOK_SECRET."""
        given = self.replicate_webhook_secret
        return tuple(re.split(r"[,\s]+", given.get_secret_value().strip(", \t\r\n"))) if given else ()

    @cached_property
    def allow_networks(self) -> tuple[Network, ...]:
        """The networks of WEBHOOK_ALLOW_CIDRS."""
        return values.networks(self.webhook_allow_cidrs)

    @cached_property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The networks of TRUSTED_PROXIES."""
        return values.networks(self.trusted_proxies)

    def at_port(self, port: int) -> Settings:
        """Return the same settings for a service that listens there: the port matters when BASE_URL is not set."""
        moved = self.model_copy()
        moved._port = port
        return moved

    @property
    def client_url(self) -> str:
        """The address at which clients reach the service."""
        return self.base_url or f"http://localhost:{self._port}"

    @property
    def public_url(self) -> str:
        """The address at which providers reach the service, if they can."""
        return self.ngrok_url or self.client_url

    def told(self) -> dict[str, str | int | dict[str, str] | None]:
        """Return every setting by its name as it may be shown: of a secret only its fingerprint."""
        return {field.upper(): _told(getattr(self, field)) for field in type(self).model_fields}

    @property
    def dev(self) -> bool:
        """Whether no key is needed."""
        return self.auth_mode == "dev"


def _told(value: str | int | SecretStr | None) -> str | int | dict[str, str] | None:
    if isinstance(value, SecretStr):
        return {"fingerprint": fingerprint(value.get_secret_value())}
    return redact(value) if isinstance(value, str) else value


def fingerprint(secret: str) -> str:
    """Return 32 bits of a hash, which tell whether a secret is still the same one."""
    return hashlib.sha256(f"reelhook fingerprint\n{secret}".encode()).hexdigest()[:8]
