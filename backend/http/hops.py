"""Where a download may lead: each address is checked, also each that a redirect names."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urljoin

from backend.core.errors import BlockedAddress
from backend.http import requests
from backend.http.addresses import MAX_URL_LENGTH, check_url
from backend.http.answers import lower
from backend.http.exchanges import Exchange
from backend.http.requests import Headers, Origin

LONGEST_FETCHED = 8000  # a signed URL has its whole permission in it; usual servers take no longer line

REDIRECTS = frozenset({301, 302, 303, 307, 308})


def checked(url: str, longest: int = MAX_URL_LENGTH) -> str:
    """Return the URL. Raises `BlockedAddress` for one that may not be asked for, whatever its host resolves to."""
    check_url(url, longest)
    return url


def admit(
    origin: Origin,
    hosts: Callable[[str, int, str], bool] | None,
    trusted: Callable[[str, str, int], bool] | None,
) -> bool:
    """Whether the address of this origin needs no check. Raises `BlockedAddress` for a host that is not expected."""
    scheme, host, port = origin
    if hosts and not hosts(host, port, scheme):
        raise BlockedAddress("This host is not one that is expected.")
    return bool(trusted and trusted(scheme, host, port))


def redirect_of(answer: Exchange) -> str | None:
    """Return where the answer redirects to; None when it is no redirect."""
    return (lower(answer.headers).get("location") or None) if answer.status in REDIRECTS else None


def redirected(url: str, location: str, headers: Headers | None) -> tuple[str, Headers | None]:
    """Return where a redirect leads, and the headers to send there. Raises `BlockedAddress`.

    The headers stay with the origin that they were meant for: they may hold the provider's key.
    """
    try:
        joined = urljoin(url, location)
    except ValueError:
        raise BlockedAddress("The URL is not valid.") from None
    old, new = requests.url(url), requests.url(checked(joined, LONGEST_FETCHED))
    if old.scheme == "https" and new.scheme != "https":
        raise BlockedAddress("A redirect leads away from https.")
    is_same = (old.scheme, old.host, old.port) == (new.scheme, new.host, new.port)
    return str(new), headers if is_same else None
