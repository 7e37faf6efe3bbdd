"""uvicorn's HTTP protocol with the bounds it lacks: for a request's head, and for connections that only wait."""

from __future__ import annotations

import asyncio
import json
import uuid

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_WITHIN_S = 15.0
MAX_HEAD_BYTES = 64 << 10
CROWDED = 0.9  # of `limit_concurrency`, at which uvicorn itself would refuse whoever comes next


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections that send nothing, drip their headers, or never stop sending them.

    When the house is nearly full, whoever has kept us waiting longest makes room for who comes: a thousand
    connections that say nothing do not keep out one that does.
    """

    _patience: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _waiting_since: float | None = None  # by the loop's clock; None while we are the ones who work

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._start_clock()
        self._waiting_since = self.loop.time()
        if self.limit_concurrency and len(self.connections) > self.limit_concurrency * CROWDED:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock: nobody is there."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the clock for a further request; waiting between requests is uvicorn's keep-alive."""
        super().on_message_begin()
        self._head_bytes = 0
        self._start_clock()
        self._waiting_since = self._waiting_since or self.loop.time()

    def on_message_complete(self) -> None:
        """The request is whole: now they wait for us."""
        super().on_message_complete()
        self._waiting_since = None

    def on_response_complete(self) -> None:
        """Answered: from here it is idle, unless the next request is already being worked on."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._waiting_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Weigh what comes as long as the head is not whole; the parser keeps all of it in memory."""
        super().data_received(data)
        if self._patience is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The request's head is too large.")

    def on_headers_complete(self) -> None:
        """The head is whole: from here the body has its own deadline."""
        self._stop_clock()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """The usual shape also for what is no HTTP; the connection ends, for nobody knows where the next one begins."""
        problem = {"type": "about:blank", "title": "Bad request", "status": 400, "detail": msg}
        body = json.dumps(problem | {"code": "invalid_request", "request_id": (id := uuid.uuid4().hex)}).encode()
        head = (
            "HTTP/1.1 400 Bad Request",
            "content-type: application/problem+json",
            f"content-length: {len(body)}",
            f"x-request-id: {id}",
            "connection: close",
        )
        self.transport.write("\r\n".join((*head, "", "")).encode() + body)
        self.transport.close()

    def _make_room(self) -> None:
        waiting = [one for one in self.connections if isinstance(one, BoundedProtocol) and one._waiting_since]
        if waiting:
            longest = min(waiting, key=lambda one: one._waiting_since or 0.0)
            longest._waiting_since = None
            longest._give_up()

    def _start_clock(self) -> None:
        self._stop_clock()
        self._patience = self.loop.call_later(HEAD_WITHIN_S, self._give_up)

    def _stop_clock(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
