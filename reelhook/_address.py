"""The address of the service and the key for it; both are read from the environment when they are not given."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from reelhook.errors import InvalidArgument

DEFAULT_URL = "http://localhost:8000"
_VISIBLE = re.compile(r"[!-~]+")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Address:
    """The base URL without a final slash, and the key, which goes there and nowhere else."""

    url: str
    key: str | None = field(repr=False)

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the header with the key if this URL is the service's own; a redirect to another host gets no key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key and origin(url) == origin(self.url) else {}


def address(base_url: str | None, api_key: str | None) -> Address:
    """Return the address from the arguments, else from REELHOOK_URL and REELHOOK_API_KEY. Raises InvalidArgument.

    Blanks around them are removed, and an empty text counts as not given, but an `api_key` of "" means no key.
    """
    url = (_trimmed(base_url) or _trimmed(os.environ.get("REELHOOK_URL")) or DEFAULT_URL).rstrip("/")
    key = _trimmed(os.environ.get("REELHOOK_API_KEY") if api_key is None else api_key)
    if not _is_usable(url):
        raise InvalidArgument(
            "the address (REELHOOK_URL) must look like http://localhost:8000, without a name and password in it"
        )
    if not _VISIBLE.fullmatch(key or "none"):
        raise InvalidArgument("the API key (REELHOOK_API_KEY) holds characters that no key has")
    return Address(url, key or None)


def _trimmed(text: str | None) -> str:
    return (text or "").strip()


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.port != 0 and _is_host(parts.hostname or "")
    except ValueError:
        return False
    return bool(usable and _VISIBLE.fullmatch(url) and not (parts.query or parts.fragment or "@" in parts.netloc))


def _is_host(host: str) -> bool:
    """Whether this is a host name or an address. What looks like an address has to be one. Raises ValueError."""
    if ":" in host or host.rpartition(".")[2].isdigit():
        return bool(ip_address(host.partition("%")[0]))
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL: a key goes to the same three only."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
