"""Who asks: a caller by one of the ways in `WAYS`, a link that we signed, or a page of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request

from backend.core.errors import Forbidden, Unauthorized
from backend.core.people import ApiKey, Caller
from backend.http import origins
from backend.live import links
from backend.web.callers import peers

if TYPE_CHECKING:
    from backend.web.calls.site import Site

_MAX_HEADER = 256  # characters; a key has 46, and what is longer is not hashed at all


@dataclass(frozen=True)
class Way:
    """One way to say who asks: its name and scheme in the API's description, and how its keys are read.

    `keys` returns the keys that a request shows in this way. It raises Unauthorized for a header that is nothing of the
    kind.
    """

    name: str
    scheme: Mapping[str, str]
    keys: Callable[[Headers], list[str]]


async def authenticate(request: Request) -> Caller:
    """Return who asks. Raises Unauthorized, and TooManyRequests for an address that guesses again and again."""
    site: Site = request.app.state.site
    known = site.dev_caller or await _by_key(request, site)
    from_where = peers.whole_address(request, site.trusted_proxies)
    caller = replace(known, address=from_where, request_id=request.state.request_id)
    request.state.caller = caller
    structlog.contextvars.bind_contextvars(key_id=caller.key_id)
    return caller


async def _by_key(request: Request, site: Site) -> Caller:
    key = read_key(request.headers)
    row = await site.keyring.check(key, peers.address(request, site.trusted_proxies))
    return caller_of(row)


def caller_of(row: ApiKey) -> Caller:
    """Return the caller that the row of a key stands for."""
    return Caller(
        key_id=row.id,
        client_id=row.client_id,
        admin=row.admin,
        image_limit=row.image_limit,
        video_limit=row.video_limit,
        campaign_id=row.campaign_id,
        name=row.name,
        prefix=f"sk_{row.prefix}",
    )


def read_key(headers: Headers) -> str:
    """Return the one key that a request shows, in whichever way.

    Raises Unauthorized for none, and for two that differ.
    """
    shown = [way.keys(headers) for way in WAYS]
    keys = {key for by_this_way in shown for key in by_this_way}
    # Two keys are never a choice: a proxy may check one of them and we the other.
    if any(len(by_this_way) > 1 for by_this_way in shown) or len(keys) != 1:
        raise Unauthorized
    (key,) = keys
    if len(key) > _MAX_HEADER:
        raise Unauthorized
    return key


def _bearers(headers: Headers) -> list[str]:
    return [_bearer(value) for value in headers.getlist("authorization")]


def _bearer(value: str) -> str:
    scheme, _, key = value.partition(" ")
    if scheme.lower() != "bearer" or len(value) > _MAX_HEADER:
        raise Unauthorized
    return key.strip(" ")


def _named(headers: Headers) -> list[str]:
    return headers.getlist("x-api-key")


_KEY = "An API key: `sk_...`"
WAYS = (
    Way("bearer", {"type": "http", "scheme": "bearer", "description": _KEY}, _bearers),
    Way("apiKey", {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": _KEY}, _named),
)


def require_own_page(headers: Headers) -> None:
    """Raise Forbidden when a browser says that a page of another address asks. Other programs say nothing of it.

    It is for requests that are answered without a key: any page can send a form or plain text to any port.
    """
    pages, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
    if not origins.is_own_request(pages, sites, headers.get("host")):
        raise Forbidden("A page of another address asks.", code="foreign_origin")


def is_signed(request: Request) -> bool:
    """Whether the request claims a signed URL instead of a key."""
    return "sig" in request.query_params or "exp" in request.query_params


def check_signed(request: Request) -> None:
    """Raise Forbidden or Gone unless we signed the URL. NotFound for an id that can be none."""
    site: Site = request.app.state.site
    parts = request.scope["path"].removeprefix("/api/v2/").split("/")
    exp, sig, file = (request.query_params.get(name) for name in ("exp", "sig", "file"))
    links.check(site.ctx, parts[0], parts[1], parts[-1], exp or "", sig or "", file)
