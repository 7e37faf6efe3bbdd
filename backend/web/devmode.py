"""Dev mode asks for no key, so it may be reached from this machine only, and not through a browser's
other pages. A proxy or tunnel in front makes every peer loopback: it is known by what it adds."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.config import is_loopback
from backend.errors import Forbidden
from backend.http import origins
from backend.web import problems

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
    """Refuses whatever did not come from this machine directly, as long as no key is asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        dev = scope["type"] == "http" and scope["app"].state.site.dev_caller is not None
        why = _objection(scope) if dev else None
        if why is None:
            await self.app(scope, receive, send)
            return
        problem = Forbidden(f"Dev mode answers this machine only: {why}", code="dev_mode_local_only")
        await problems.render(problem, scope)(scope, receive, send)


def _objection(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    for name in headers:
        if name in _FORWARDING or name.startswith(_FORWARDING_STARTS):
            return f"the request came through a proxy ({name[:40]})."
    client = scope.get("client")
    if client is not None and not is_loopback(client[0]):
        return "the request came from another machine."
    return _objection_to_page(scope["method"], headers)


def _objection_to_page(method: str, headers: Headers) -> str | None:
    """Pages of this machine may be looked at from one another; only our own may change something.

    Any page can send a form or plain text to any port without asking first, so the type of a body proves nothing.
    """
    host, pages, sites = headers.get("host"), headers.getlist("origin"), headers.getlist("sec-fetch-site")
    if not origins.names_this_machine(host):
        return "the Host is not this machine."
    if not all(origins.is_local(page) for page in pages):
        return "the page that asks is not on this machine."
    if "cross-site" in sites:
        return "another site asks."
    if method not in origins.SAFE_METHODS and not origins.is_own_request(pages, sites, host):
        return "a page of another address asks."
    return None
