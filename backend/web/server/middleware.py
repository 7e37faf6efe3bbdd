"""What surrounds every request. Pure ASGI: so nothing is buffered, and context variables keep their values."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.errors import InvalidJson
from backend.web.calls import metrics, problems

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WEBHOOK_NONCE = re.compile(r"^(/webhooks/[^/]*/[^/]*/).+")

# Each is set unless the answer says something else, as media and the documentation page do.
_SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

log = structlog.get_logger("backend.web.access")


class Envelope:
    """Gives every request an id and every answer its headers; logs and counts each of them once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(scope)
        structlog.contextvars.clear_contextvars()  # a pipelined request begins in the context of the one before it
        structlog.contextvars.bind_contextvars(request_id=state["request_id"])
        seen = {"status": 499}  # stays when the client left before an answer began
        began = time.perf_counter()
        try:
            await self.app(scope, receive, _sealed(send, state["request_id"], seen))
        finally:
            _report(scope, seen["status"], time.perf_counter() - began)


def _request_id(scope: Scope) -> str:
    """Return the caller's own id when it is a harmless one, else a new one."""
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    sane = _REQUEST_ID.fullmatch(given[0].decode("latin-1")) if len(given) == 1 else None
    return sane[0] if sane else os.urandom(16).hex()


def _sealed(send: Send, request_id: str, seen: dict[str, int]) -> Send:
    async def seal(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen["status"] = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = request_id
            for name, value in _SECURITY.items():
                headers.setdefault(name, value)
        await send(message)

    return seal


def _report(scope: Scope, status: int, seconds: float) -> None:
    state = scope["state"]
    caller = state.get("caller")
    metrics.count(scope["method"], state.get("route", "unmatched"), status, seconds)
    log.info(
        "request",
        method=scope["method"][:20],
        path=shown_path(scope["path"]),
        status=status,
        ms=round(seconds * 1000, 1),
        key_id=caller.key_id if caller else None,
    )


def shown_path(path: str) -> str:
    """Return a path as it may be logged: without the query, and without the nonce of a webhook."""
    return _WEBHOOK_NONCE.sub(r"\1***", path)[:300]


class ErrorBorder:
    """Answers an error that nobody foresaw with a 500 that says nothing, and logs all of it.

    Starlette has its own place for this outside all other middleware: its answers would have no request id and none of
    the headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _count(scope, b"host") > 1:
            await _refuse_hosts(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            log.exception("request_failed", method=scope["method"], path=shown_path(scope["path"]))
            if started:
                raise  # the server must cut the connection: half an answer may not look whole
            response = problems.render(problems.unexpected(error), scope)
            await response(scope, receive, send)


def _count(scope: Scope, name: bytes) -> int:
    return sum(1 for given, _ in scope["headers"] if given == name)


async def _refuse_hosts(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse two Host headers: a proxy may take one of them and we the other."""
    problem = InvalidJson("The request has more than one Host header.", code="invalid_request")
    response = problems.render(problem, scope)
    await response(scope, receive, send)


def request_id(request: Request) -> Any:
    """Return the id of this request, for answers that carry it."""
    return request.state.request_id
