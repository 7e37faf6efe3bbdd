"""Addresses for webhooks. One that can never work is refused when it is written."""

from __future__ import annotations

from urllib.parse import urlsplit

from backend.config import is_loopback
from backend.context import Context
from backend.core.errors import BlockedAddress, InvalidInput
from backend.http import check_target


def check(ctx: Context, url: str | None, field: str) -> None:
    """Raise InvalidInput for what can never be a webhook address. Where a name leads is checked when it is called."""
    if url is None:
        return
    try:
        check_target(url, ctx.settings.allow_networks)
    except BlockedAddress as error:
        raise InvalidInput.of(field, error.message) from error
    if _origin(url) in map(_origin, (ctx.settings.client_url, ctx.settings.public_url)):
        raise InvalidInput.of(field, "is this service itself")


def _origin(url: str) -> tuple[str | None, int]:
    """Return host and port. All names of this machine count as one host."""
    parts = urlsplit(url)
    host = "localhost" if is_loopback(url) else parts.hostname
    return host, parts.port or (443 if parts.scheme == "https" else 80)
