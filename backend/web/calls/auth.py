"""The caller of a request, by its API key: `Authorization: Bearer sk_...` or `X-API-Key: sk_...`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request

from backend.core.errors import Unauthorized
from backend.core.people import ApiKey, Caller
from backend.live import links
from backend.web.callers import peers

if TYPE_CHECKING:
    from backend.web.calls.site import Site

_MAX_HEADER = 256


async def authenticate(request: Request) -> Caller:
    """Who is asking; raises Unauthorized, or TooManyRequests for an address that keeps guessing."""
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
    """The caller a key's row stands for."""
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
    """The one key a request shows; two that differ are as good as none."""
    given = [_bearer(value) for value in headers.getlist("authorization")]
    named = headers.getlist("x-api-key")
    if len(given) > 1 or len(named) > 1 or len({*given, *named}) != 1:
        raise Unauthorized
    key = (given or named)[0]
    if len(key) > _MAX_HEADER:
        raise Unauthorized
    return key


def _bearer(value: str) -> str:
    scheme, _, key = value.partition(" ")
    if scheme.lower() != "bearer" or len(value) > _MAX_HEADER:
        raise Unauthorized
    return key.strip(" ")


def is_signed(request: Request) -> bool:
    """Whether the request claims a signed URL instead of a key."""
    return "sig" in request.query_params or "exp" in request.query_params


def check_signed(request: Request) -> None:
    """Raise Forbidden or Gone unless the signed URL is one of ours; an id that is none is not found."""
    site: Site = request.app.state.site
    parts = request.scope["path"].removeprefix("/api/v2/").split("/")
    exp, sig, file = (request.query_params.get(name) for name in ("exp", "sig", "file"))
    links.check(site.ctx, parts[0], parts[1], parts[-1], exp or "", sig or "", file)
