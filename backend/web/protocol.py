"""uvicorn's HTTP protocol with two bounds it lacks: how long and how large a request's head may be."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_WITHIN_S = 15.0
MAX_HEAD_BYTES = 64 << 10


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections that send nothing, drip their headers, or never stop sending them."""

    _patience: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock: nobody is there."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the clock for a further request; waiting between requests is uvicorn's keep-alive."""
        super().on_message_begin()
        self._head_bytes = 0
        self._start_clock()

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
