"""Dev mode asks for no key, so it may be reached from this machine only, and not through a browser's
other pages. A proxy or tunnel in front makes every peer loopback: it is known by what it adds."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.config import is_loopback
from backend.errors import Forbidden
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
    if not _is_local(headers.get("host")):
        return "the Host is not this machine."
    if not all(_is_local_origin(origin) for origin in headers.getlist("origin")):
        return "the page that asks is not on this machine."
    if headers.get("sec-fetch-site") == "cross-site":
        return "another site asks."
    return None


def _is_local(host: str | None) -> bool:
    """Whether a Host names this machine; anything that is not plainly a host and port does not."""
    if not host or any(character in host for character in "/\\@?# \t,"):
        return False
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname is not None and is_loopback(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        return False


def _is_local_origin(origin: str) -> bool:
    """A page's origin; `null`, which sandboxed pages send, is nobody's."""
    scheme, _, host = origin.partition("://")
    return scheme in ("http", "https") and _is_local(host)
