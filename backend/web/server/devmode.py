"""Dev mode asks for no key: so only this machine may reach the service, and no page of another site.

A proxy or tunnel in front makes every peer look like this machine: it is known by the headers that it adds.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.config import is_loopback
from backend.core.errors import Forbidden
from backend.http import origins
from backend.web.calls import auth, problems

# A proxy or tunnel adds one of these; browsers and usual programs do not.
_FORWARDING = (
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "true-client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "ngrok-agent-ips",
)
_FORWARDING_STARTS = ("x-forwarded", "cf-", "cdn-loop", "x-envoy-", "x-amzn-trace")


class DevGuard:
    """Refuses every request that did not come from this machine directly, as long as no key is asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["app"].state.site.dev_caller is not None:
            try:
                _check(scope)
            except Forbidden as problem:
                await problems.render(problem, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _check(scope: Scope) -> None:
    """Raise Forbidden unless this machine asks. A request that changes something must come from a page of our own."""
    headers = Headers(scope=scope)
    if why := _objection(headers, scope.get("client")):
        raise Forbidden(f"Dev mode answers this machine only: {why}", code="dev_mode_local_only")
    if scope["method"] not in origins.SAFE_METHODS:  # the type of a body proves nothing
        auth.require_own_page(headers)


def _objection(headers: Headers, client: tuple[str, int] | None) -> str | None:
    for name in headers:
        if name in _FORWARDING or name.startswith(_FORWARDING_STARTS):
            return f"the request came through a proxy ({name[:40]})."
    if client is not None and not is_loopback(client[0]):
        return "the request came from another machine."
    if not origins.names_this_machine(headers.get("host")):
        return "the Host is not this machine."
    if not all(origins.is_local(page) for page in headers.getlist("origin")):
        return "the page that asks is not on this machine."
    if "cross-site" in headers.getlist("sec-fetch-site"):
        return "another site asks."
    return None
