"""The connection under a request: dropped without an answer, or written to past HTTP.

uvicorn gives an application no way to do that, so the emulator's server puts the transport into the scope.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.http.serving import StrictProtocol

_TRANSPORT = "reelhook.transport"


class EmulatorProtocol(StrictProtocol):
    """The service's own, plus the transport in every scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = _with_transport(self.app, transport)


def _with_transport(app: ASGIApp, transport: asyncio.Transport) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope[_TRANSPORT] = transport
        await app(scope, receive, send)

    return call


class Reset(Response):
    """No answer: the client sees its connection reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = transport_of(scope)
        linger = struct.pack("ii", 1, 0)  # closing at once, without waiting for what is unsent: that is a reset
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
        await until_gone(receive)


class Raw(Response):
    """Writes `content` as it is, headers included, and closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = transport_of(scope)
        transport.write(bytes(self.body))
        transport.close()
        await until_gone(receive)


def halved(answer: Response) -> Response:
    """The same answer with half of its body: JSON that nobody can read."""
    body = bytes(answer.body)
    return Response(body[: len(body) // 2], answer.status_code, media_type=answer.media_type)


def transport_of(scope: Scope) -> asyncio.Transport:
    """Raises RuntimeError when the emulator runs under another server than its own."""
    transport = scope.get(_TRANSPORT)
    if transport is None:
        raise RuntimeError("this fault needs the emulator's own server: backend.emulator.Server")
    found: asyncio.Transport = transport
    return found


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
