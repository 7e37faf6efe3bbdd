"""uvicorn's HTTP protocol, made strict: a request is answered once and in its turn; doubtful framing ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from backend.http.cycles import Cycle, write_refusal
from backend.http.framing import RequestParser, find_fault

LINGER_S = 2.0  # for the rest of a request that has its answer
OLD_VERSION = "0.9"


class StrictProtocol(HttpToolsProtocol):
    """Closes the connection whenever it is not certain where the next request begins.

    That is after bytes that are no request, and after a refusal that was sent before the request had come whole.
    """

    _line: asyncio.Transport
    _running: RequestResponseCycle | None = None  # the one that is being answered, or was last
    _fault: str | None = None  # why nothing more is read here
    _is_leaving = False
    _in_head = False
    _in_body = False

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        # uvicorn's parser takes an offer to upgrade for accepted, and skips the body: requests were smuggled so.
        self.parser = cast(httptools.HttpRequestParser, RequestParser(self))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give uvicorn's own code a transport that closes politely."""
        self._line = transport
        super().connection_made(cast(asyncio.Transport, _Polite(transport, self)))

    def data_received(self, data: bytes) -> None:
        """Read on, unless earlier bytes were no request."""
        if self._fault is not None:
            return
        super().data_received(data)
        # A request of that version has no headers, so their end never comes.
        if self._in_head and self.parser is not None and self.parser.get_http_version() == OLD_VERSION:
            self.send_400_response(f"HTTP/{OLD_VERSION} is not spoken here.")

    def on_message_begin(self) -> None:
        """Note that the head of a request begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Give the request to the application when its head is whole and in order. Raises HttpParserError."""
        version = self.parser.get_http_version()
        if fault := find_fault(version, self.parser.get_method(), self.headers):
            self._fault = fault
            raise httptools.HttpParserError(fault)
        super().on_headers_complete()
        self._in_head, self._in_body = False, True
        if version == "1.0":
            self.cycle.waiting_for_100_continue = False  # such a client would take the 100 for its answer

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body. A request that has its answer needs no more of it."""
        if not self._is_leaving:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._in_body = False
        if self._is_leaving:
            self.end()
            return
        super().on_message_complete()
        if self.cycle.keep_alive and not self.parser.should_keep_alive():
            self._close_after(self.cycle)

    def _close_after(self, cycle: RequestResponseCycle) -> None:
        """Close after this request: a trailer said that it is the last one, and the parser reads nothing behind it."""
        cycle.keep_alive = False
        if cycle.response_complete:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Start the next request in the queue, or refuse what was no request when it is its turn."""
        super().on_response_complete()
        if self._fault is not None:
            self._refuse_in_turn()

    def send_400_response(self, msg: str) -> None:
        """Read nothing more, and refuse once all earlier requests are answered."""
        if self.is_leaving:
            self.end()
            return
        self._fault = self._fault or msg
        self._in_head = False
        # The application may be reading that body, and would wait for the rest of it.
        if self._in_body:
            self._break_off(cast(Cycle, self.cycle))
        self._refuse_in_turn()

    def refusal(self, detail: str) -> bytes:
        """Return the whole answer to bytes that are no request."""
        return write_refusal({"title": "Bad request", "status": 400, "detail": detail})

    def leave(self) -> None:
        """Close, a little later while the client still sends.

        If we closed at once the kernel would reset the connection, and the client would lose the answer it has not
        read.
        """
        if self._is_leaving:
            return
        self._is_leaving = True
        if self._line.is_closing() or not (self._in_body or self._fault):
            self.end()
            return
        self.flow.resume_reading()
        # The client sees the end of its answer, and has a reason to stop sending.
        if self._line.can_write_eof():
            with suppress(OSError):  # the client has hung up meanwhile
                self._line.write_eof()
        self.linger()

    def linger(self) -> None:
        """Give the client LINGER_S to read its answer and to end."""
        self.loop.call_later(LINGER_S, self.end)

    def end(self) -> None:
        """Close now."""
        self._is_leaving = True
        self._line.close()

    @property
    def is_leaving(self) -> bool:
        """Whether no further request is answered on this connection."""
        return self._is_leaving or self._line.is_closing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = Cycle  # uvicorn makes them itself
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _break_off(self, cycle: Cycle) -> None:
        """Take back a request whose body is broken, unless the application has it already and will answer."""
        if cycle.response_complete:
            self.transport.close()
        elif getattr(cycle, "has_begun", False):
            cycle.is_broken, cycle.keep_alive = True, False
            cycle.message_event.set()
        else:
            cycle.is_void = cycle.response_complete = True
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
                self.cycle = cast(RequestResponseCycle, self._running)  # the newest that is to be answered

    def _refuse_in_turn(self) -> None:
        if self._fault is None or self.is_leaving:
            return
        if self._running is None or self._running.response_complete:
            self.transport.write(self.refusal(self._fault))
            self.transport.close()


class _Polite:
    """The transport as uvicorn's own code gets it: its `close` waits for the client, as `StrictProtocol.leave` says."""

    def __init__(self, transport: asyncio.Transport, protocol: StrictProtocol) -> None:
        self._transport, self._protocol = transport, protocol
        self.write: Callable[[bytes], None] = transport.write
        self.close = protocol.leave

    def is_closing(self) -> bool:
        """Whether the connection is closed, or soon will be."""
        return self._protocol.is_leaving

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
