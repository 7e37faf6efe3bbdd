"""The key that every route of a provider's API needs."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from backend.emulator.kit.refusals import unauthenticated
from backend.emulator.kit.state import emulator_of

Endpoint = Callable[[Request], Awaitable[Response]]


def keyed(endpoint: Endpoint) -> Endpoint:
    """The endpoint, for those who have the key."""

    async def guarded(request: Request) -> Response:
        emulator = emulator_of(request)
        key = emulator.provider.key_of(request)
        if not hmac.compare_digest(key.encode(), emulator.api_key.encode()):
            raise unauthenticated()
        return await endpoint(request)

    return guarded


def bearer(request: Request) -> str:
    """The key of `Authorization: Bearer KEY`; the empty text without it."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else ""
