"""Which page asks, as browsers say it: for what answers without a key, to whoever is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from backend.config import is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"http": 80, "https": 443}


def names_this_machine(host: str | None) -> bool:
    """Whether a Host names this machine; anything that is not plainly a host and port does not.

    A page whose own name was made to lead here names itself.
    """
    found = _address("http", host or "")
    return found is not None and is_loopback(found[0])


def is_local(origin: str) -> bool:
    """Whether a page is on this machine; `null`, which sandboxed pages send, is nobody's."""
    found = _page(origin)
    return found is not None and is_loopback(found[0])


def is_own(origin: str, host: str | None) -> bool:
    """Whether a page is of the very address it asks: the same port, too."""
    found = _page(origin)
    return found is not None and found == _address(origin.partition(":")[0], host or "")


def is_own_request(origins: Sequence[str], sites: Sequence[str], host: str | None) -> bool:
    """Whether no other page asks, by a request's Origin and Sec-Fetch-Site; who is no browser sends neither."""
    return all(is_own(origin, host) for origin in origins) and all(site in ("same-origin", "none") for site in sites)


def _page(origin: str) -> tuple[str, int] | None:
    scheme, sign, host = origin.partition("://")
    return _address(scheme, host) if sign and scheme in _PORTS else None


def _address(scheme: str, host: str) -> tuple[str, int] | None:
    """Host and port of `host[:port]`; None for anything else."""
    if not host or any(character in host for character in "/\\@?# \t,"):
        return None
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname, parts.port or _PORTS[scheme]) if parts.hostname else None
    except ValueError:
        return None
