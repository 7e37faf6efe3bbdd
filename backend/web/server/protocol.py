"""The HTTP protocol with limits on time and size: for what a request sends, and for connections that only wait."""

from __future__ import annotations

import asyncio
import enum
import fcntl
import termios
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from backend.http.cycles import write_refusal
from backend.http.serving import StrictProtocol

HEAD_WITHIN_S = 15.0
MAX_HEAD_BYTES = 64 << 10
MAX_FRAMING_BYTES = 8 << 10  # trailers and the like: what comes where a body belongs and holds nothing of it
MOST_PIPELINED = 100
LINGER_S = 2.0  # for the rest of a request that has its answer
STALLED_S = 30.0  # without taking one byte of an answer
LOOK_EVERY_S = 1.0
QUIET_S = 2.0  # no sign of life for so long: may have to make room
CROWDED = 0.9  # of `limit_concurrency`, at which uvicorn itself would refuse whoever comes next


class Stage(enum.Enum):
    """How far the newest request on a connection has come."""

    HEAD = enum.auto()  # its head is not whole; perhaps nothing came at all
    BODY = enum.auto()  # its body is not whole; perhaps it was answered already
    WHOLE = enum.auto()  # they wait for us
    IDLE = enum.auto()  # we wait for the next one


class BoundedProtocol(StrictProtocol):
    """Closes connections that send nothing, send too slowly, never stop sending, or do not read their answers.

    When nearly all places are taken, the connection that needs its place least is cut for each new one: so a thousand
    connections that say or take nothing do not keep out one that does.
    """

    _stage = Stage.HEAD
    _seen_at = 0.0  # the last sign of life in this stage, by the loop's clock
    _clock: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _framing_bytes = 0
    _watch: asyncio.TimerHandle | None = None  # runs while an answer waits to be taken
    _untaken_bytes = 0
    _taken_at = 0.0
    _gone = False
    _stops = False  # the server does: then nobody is waited for who takes nothing

    def __init__(self, *args: Any, stopping: Callable[[], None] | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self._stopping = stopping

    def shutdown(self) -> None:
        """Stop: tell those who have no answer yet, and cut those who do not take theirs.

        The server waits for all answers.
        """
        if self._stopping is not None:
            self._stopping()  # streams end first: the server waits for every answer
        self._stops = True
        if self._watch is not None and self.loop.time() - self._taken_at >= QUIET_S:
            self._cut()
        super().shutdown()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request, and make room if nearly all places are taken."""
        super().connection_made(transport)
        self._enter(Stage.HEAD, HEAD_WITHIN_S)
        if self.limit_concurrency and len(self.connections) > self.limit_concurrency * CROWDED:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks: nobody is there any more."""
        self._is_leaving = self._gone = True
        self._set_clock(None)
        self._stop_watch()
        if self._running is not None:
            self._running.disconnected = not self._running.response_complete  # uvicorn tells the newest request alone
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the clock for a further request. The time between two requests is uvicorn's keep-alive."""
        super().on_message_begin()
        self._head_bytes = 0
        self._enter(Stage.HEAD, HEAD_WITHIN_S)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Headers behind the body (trailers) are dropped: nobody here reads them."""
        if self._stage is Stage.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that the head is whole: from here the body has its own deadline."""
        self._framing_bytes = 0
        self._enter(Stage.BODY)
        # Requests without a body cost the sender few bytes, and each waits here with its headers.
        if len(self.pipeline) >= MOST_PIPELINED:
            self.end()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, and note that the client is alive."""
        self._framing_bytes = 0
        self._seen_at = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole: now the client waits for us, unless it had its answer before."""
        super().on_message_complete()
        if self._is_leaving:
            return
        if self.cycle.response_complete:
            self._enter(Stage.IDLE, self.timeout_keep_alive)
        else:
            self._enter(Stage.WHOLE)

    def on_response_complete(self) -> None:
        """Note that the request is answered: the connection is idle, unless more comes."""
        super().on_response_complete()
        if self.transport.is_closing() or self.timeout_keep_alive_task is None:
            return
        if self._stage is Stage.WHOLE:
            self._enter(Stage.IDLE)
            return
        self.timeout_keep_alive_task.cancel()  # there is more to come of this request
        self.timeout_keep_alive_task = None
        if self._stage is Stage.BODY:
            self._set_clock(LINGER_S)

    def data_received(self, data: bytes) -> None:
        """Count the bytes that are no body: the parser keeps all of them in memory."""
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._is_leaving:
            if self._framing_bytes > (MAX_HEAD_BYTES if self._fault else MAX_FRAMING_BYTES):
                self.end()
        elif self._fault is not None or self._line.is_closing():
            return
        elif self._stage is Stage.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The request's head is too large.")
        elif self._stage is Stage.BODY and self._framing_bytes > MAX_FRAMING_BYTES:
            self.end()
        elif self._stage is Stage.IDLE and self._clock is None and self.timeout_keep_alive_task is None:
            self._set_clock(HEAD_WITHIN_S)  # empty lines: no request has begun, but uvicorn's keep-alive ended

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request. There is no deadline for it: earlier requests are still to be answered."""
        super().send_400_response(msg)
        self._framing_bytes = 0
        if not self._is_leaving:
            self._enter(Stage.WHOLE)

    def refusal(self, detail: str) -> bytes:
        """Return the refusal in the usual JSON shape, also for bytes that are no HTTP."""
        problem = {"type": "about:blank", "title": "Bad request", "status": 400, "detail": detail}
        problem |= {"code": "invalid_request", "request_id": (id := uuid.uuid4().hex)}
        return write_refusal(problem, f"x-request-id: {id}")

    def pause_writing(self) -> None:
        """Note that an answer waits to be taken."""
        super().pause_writing()
        self._start_watch()

    def resume_writing(self) -> None:
        """Note that it was taken."""
        super().resume_writing()
        if not self._is_leaving:
            self._stop_watch()

    def linger(self) -> None:
        """Give the client LINGER_S to read its answer and to end."""
        self._set_clock(LINGER_S)

    def end(self) -> None:
        """Close now. What we still hold of an answer is sent as long as the other side takes it."""
        self._is_leaving = True
        self._set_clock(None)
        if not self._line.is_closing():
            self._line.close()
        if not self._gone:
            self._start_watch()

    def _cut(self) -> None:
        self._is_leaving = self._gone = True
        self._line.abort()

    def _enter(self, stage: Stage, within_s: float | None = None) -> None:
        self._stage = stage
        self._seen_at = self.loop.time()
        self._set_clock(within_s)

    def _set_clock(self, within_s: float | None) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock = None if within_s is None or self._gone else self.loop.call_later(within_s, self.end)

    def _start_watch(self) -> None:
        if self._watch is None:
            self._untaken_bytes, self._taken_at = self._count_untaken(), self.loop.time()
            self._watch = self.loop.call_later(LOOK_EVERY_S, self._look)

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        """Cut a download of which nothing was taken for STALLED_S. A slow one goes on, however slow it is."""
        now, untaken_bytes = self.loop.time(), self._count_untaken()
        if untaken_bytes != self._untaken_bytes:
            self._untaken_bytes, self._taken_at = untaken_bytes, now
        if now - self._taken_at >= (QUIET_S if self._stops else STALLED_S):
            self._cut()
        else:
            self._watch = self.loop.call_later(LOOK_EVERY_S, self._look)

    def _count_untaken(self) -> int:
        """Return how many bytes we and the kernel hold. The kernel takes megabytes at once and sends them slowly."""
        queued = bytearray(4)
        with suppress(OSError, ValueError):  # a system that does not tell; a socket that is closed
            fcntl.ioctl(self._line.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        # Without the kernel's part a slow but steady download looks as if it did not move for minutes.
        return self._line.get_write_buffer_size() + int.from_bytes(queued, "little")

    def _make_room(self) -> None:
        now = self.loop.time()
        places = {one: one._place(now) for one in self.connections if isinstance(one, BoundedProtocol)}
        free = {one: place for one, place in places.items() if place is not None and one is not self}
        if free:
            min(free, key=lambda one: free[one])._cut()

    def _place(self, now: float) -> tuple[int, float] | None:
        """Return the rank in which connections make room, the smallest first; None for one that is being answered."""
        if self._gone:
            return None
        if self._watch is not None:
            return (0, self._taken_at) if now - self._taken_at >= QUIET_S else None
        if self._stage is Stage.HEAD and now - self._seen_at >= QUIET_S:
            return 1, self._seen_at
        if self._stage is Stage.IDLE or (self._stage is Stage.BODY and self.cycle.response_complete):
            return 2, self._seen_at
        return None if self._stage is Stage.WHOLE else (3, self._seen_at)
