"""Settings from the environment and `.env`; the only reader of the environment."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import AliasChoices, Field, PrivateAttr, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.logs import redact

Network = IPv4Network | IPv6Network
LEAST_KEY = 32  # characters of DATA_KEY: whoever guesses it can make links to any file


class Settings(BaseSettings):
    """Every setting, its default and its meaning (shown by `reelhook doctor`)."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field("sqlite:///data/reelhook.db", description="where rows are kept")
    storage_url: str = Field("file:data/media", description="where bytes are kept")
    redis_url: str | None = Field(None, description="shared rate limits for several processes")
    base_url: str | None = Field(None, description="where clients reach the service")
    ngrok_url: str | None = Field(None, description="the public address, when it differs from BASE_URL")
    auth_mode: Literal["keys", "dev"] = Field("keys", description="dev: no key needed, loopback only")
    replicate_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
        description="without it Replicate is not offered",
    )
    replicate_base_url: str = Field("https://api.replicate.com/v1", description="Replicate's API")
    replicate_webhook_secret: SecretStr | None = Field(
        None, description="whsec_..., or several: any one verifies; asked from the API when it is not set"
    )
    image_rate_limit: str = Field("10/minute", description="image requests a key may make")
    video_rate_limit: str = Field("5/minute", description="video requests a key may make")
    webhook_allow_cidrs: str = Field("", description="private networks that asset and webhook URLs may reach")
    trusted_proxies: str = Field("", description="CIDRs whose X-Forwarded-For is believed")
    data_key: SecretStr | None = Field(
        None, description="signs media URLs, 32 characters at least; made at first start, beside the database"
    )
    data_key_old: SecretStr | None = Field(
        None, description="keys of before, separated by commas: links they signed still work"
    )
    max_in_flight: int = Field(200, ge=1, le=10_000, description="predictions at one provider at a time")
    max_unfinished_per_client: int = Field(10_000, ge=1, description="generations a client may have unfinished")
    max_asset_mb: int = Field(200, ge=1, le=5_000, description="the largest asset")
    max_output_mb: int = Field(2_000, ge=1, le=20_000, description="the largest output that is stored")
    history_days: int = Field(
        90, ge=1, le=3650, description="how long events, received webhooks and the audit log are kept"
    )
    min_free_mb: int = Field(200, ge=0, description="free disk below which nothing new is accepted")

    _port: int = PrivateAttr(8000)

    @field_validator("redis_url", "base_url", "ngrok_url", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("replicate_api_key", "replicate_webhook_secret", "data_key", "data_key_old", mode="before")
    @classmethod
    def _no_secret_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("data_key")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().strip()) < LEAST_KEY:
            raise ValueError(
                f"needs at least {LEAST_KEY} characters: make one with `openssl rand -hex 32`, and keep the "
                "present one as DATA_KEY_OLD"
            )
        return value

    @field_validator("base_url", "ngrok_url", "replicate_base_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("must be http(s)://host[:port][/path]")
        return value.rstrip("/")

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be redis://, rediss:// or unix://")
        return value

    @field_validator("image_rate_limit", "video_rate_limit")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        parse_many(value)
        return value

    @field_validator("webhook_allow_cidrs", "trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        _networks(value)
        return value

    @cached_property
    def webhook_secrets(self) -> tuple[str, ...]:
        """REPLICATE_WEBHOOK_SECRET as the secrets in it."""
        given = self.replicate_webhook_secret
        return tuple(re.split(r"[,\s]+", given.get_secret_value().strip(", \t\r\n"))) if given else ()

    @cached_property
    def allow_networks(self) -> tuple[Network, ...]:
        """WEBHOOK_ALLOW_CIDRS as networks."""
        return _networks(self.webhook_allow_cidrs)

    @cached_property
    def proxy_networks(self) -> tuple[Network, ...]:
        """TRUSTED_PROXIES as networks."""
        return _networks(self.trusted_proxies)

    def at_port(self, port: int) -> Settings:
        """The same, for a service that listens there: its address when BASE_URL does not say another."""
        moved = self.model_copy()
        moved._port = port
        return moved

    @property
    def client_url(self) -> str:
        """Where clients reach the service."""
        return self.base_url or f"http://localhost:{self._port}"

    @property
    def public_url(self) -> str:
        """Where providers reach the service, if they can."""
        return self.ngrok_url or self.client_url

    def told(self) -> dict[str, str | int | dict[str, str] | None]:
        """Every setting by its name, as it may be shown: of a secret only its fingerprint."""
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
    """What tells whether a secret is still the same one: 32 bits of a hash."""
    return hashlib.sha256(f"reelhook fingerprint\n{secret}".encode()).hexdigest()[:8]


def is_public(url: str) -> bool:
    """Whether somebody elsewhere might reach this address: neither loopback nor "any address of this machine"."""
    address = _address(urlsplit(url).hostname or "")
    return not is_loopback(url) and not (address is not None and address.is_unspecified)


def is_loopback(url_or_host: str) -> bool:
    """Whether an address can only be reached from this machine. Names other than localhost are not looked up."""
    host = urlsplit(url_or_host).hostname if "://" in url_or_host else url_or_host
    host = (host or "").rstrip(".").lower()
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.split("%")[0])
    except ValueError:
        return None


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
