"""Where the service is and with which key it is called; read from the environment when not given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from reelhook.errors import InvalidArgument

DEFAULT_URL = "http://localhost:8000"


@dataclass(frozen=True)
class Address:
    """The base URL without a final slash, and the key, which goes there and nowhere else."""

    url: str
    key: str | None = field(repr=False)

    def headers_for(self, url: str) -> dict[str, str]:
        """The key, if this URL is the service's own."""
        return {"Authorization": f"Bearer {self.key}"} if self.key and origin(url) == origin(self.url) else {}


def address(base_url: str | None, api_key: str | None) -> Address:
    """The address from what was given, else from REELHOOK_URL and REELHOOK_API_KEY. Raises InvalidArgument."""
    url = (base_url or os.environ.get("REELHOOK_URL") or DEFAULT_URL).rstrip("/")
    key = os.environ.get("REELHOOK_API_KEY") if api_key is None else api_key
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.query or parts.fragment:
        raise InvalidArgument("the address must look like http://localhost:8000, without a name and password in it")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise InvalidArgument("the API key holds characters that no key has")
    return Address(url, key or None)


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: where a key may go."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
