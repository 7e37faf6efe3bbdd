"""Refuse pages of a browser: the emulator asks for no secret, and its faults and ledger are for developers alone."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.http import origins


class PageGuard:
    """Refuses what another page asks, and names that were made to lead to this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _may(scope):
            refusal = PlainTextResponse("The emulator answers programs, not pages of other addresses.", 403)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _may(scope: Scope) -> bool:
    """A link to a picture may be followed from anywhere; an emulator for other machines has any name."""
    headers = Headers(scope=scope)
    host, listens_at = headers.get("host"), (scope.get("server") or ("",))[0]
    if origins.names_this_machine(_bracketed(listens_at)) and not origins.names_this_machine(host):
        return False
    sites = [] if scope["method"] in origins.SAFE_METHODS else headers.getlist("sec-fetch-site")
    return origins.is_own_request(headers.getlist("origin"), sites, host)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
