"""TCP and TLS connections for `backend.http`: made to addresses that were checked, and bound to a deadline."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import cast

from backend.core.errors import NotSent

BUFFERED_BYTES = 256 << 10  # beyond this the peer has to wait for us


class LineError(Exception):
    """A connection failed, for the reason that its kind says."""


class Ended(LineError):
    """The other side has closed the connection."""


class Silent(LineError):
    """The other side sent nothing in time, or took nothing."""


class Stream(asyncio.Protocol):
    """A connection whose reads and writes all end at `deadline` (monotonic seconds), however slowly it drips.

    `sent` tells whether a byte of the present request was handed to the socket: it decides between `NotSent`, which may
    be tried again, and `Unanswered`, which may be paid. A timeout ends a read without cancelling anything, so the state
    of the connection stays known.
    """

    def __init__(self) -> None:
        self.deadline = 0.0
        self.sent = False
        self._transport: asyncio.Transport | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._ended = False
        self._is_reading = True
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._chunks.append(bytes(data))
        self._buffered += len(data)
        if self._buffered > BUFFERED_BYTES and self._is_reading and self._transport:
            self._is_reading = False
            self._transport.pause_reading()
        _wake(self._readable)

    def eof_received(self) -> None:
        self._ended = True
        _wake(self._readable)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        _wake(self._readable)
        _wake(self._writable)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        _wake(self._writable)

    @property
    def is_quiet(self) -> bool:
        """Whether the other side neither sent what nobody has read nor closed the connection."""
        return not self._chunks and not self._ended

    async def read(self, limit_s: float) -> bytes:
        """Return the next bytes as they came; nothing at the end. Raises `Silent` after `limit_s` seconds."""
        if not self._chunks and not self._ended:
            self._readable = asyncio.get_running_loop().create_future()
            if not await self._wait(self._readable, limit_s):
                raise Silent
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk)
        if not self._is_reading and not self._chunks and self._transport and not self._ended:
            self._is_reading = True
            self._transport.resume_reading()
        return chunk

    async def write(self, buffer: bytes, limit_s: float) -> None:
        """Hand the bytes on. Raises `Ended`, and `Silent` when they are not taken within `limit_s`."""
        if self._ended or not self._transport or self._transport.is_closing():
            raise Ended
        self.sent = True  # before the write: when that fails, some of it may have left
        self._transport.write(buffer)
        if self._writable and not self._writable.done() and not await self._wait(self._writable, limit_s):
            raise Silent

    async def aclose(self) -> None:
        """Close at once. What the peer has not taken by now is lost to it."""
        if self._transport and not self._transport.is_closing():
            self._transport.abort()
            await asyncio.sleep(0)  # the loop closes the socket in its next turn

    async def _wait(self, waiter: asyncio.Future[None], limit_s: float) -> bool:
        """Wait for the peer; False when the time is over first."""
        left_s = min(self.deadline - time.monotonic(), limit_s)
        if left_s <= 0:
            return False
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            _wake(waiter)

        timer = asyncio.get_running_loop().call_later(left_s, expire)
        try:
            await waiter
        finally:
            timer.cancel()
        return not expired


async def connect(addresses: Sequence[str], port: int, tls: ssl.SSLContext | None, host: str, ends_at: float) -> Stream:
    """Connect to the first address that answers before `ends_at` (monotonic seconds), or raise `NotSent`.

    `host` is the name the certificate must have.
    """
    loop = asyncio.get_running_loop()
    reason: Exception | None = None
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        # A dead address takes its share of the time, not all of it.
        try:
            async with asyncio.timeout(max(ends_at - time.monotonic(), 0) / left):
                _, stream = await loop.create_connection(
                    Stream, address, port, ssl=tls, server_hostname=host if tls else None
                )
            return stream
        except (OSError, ValueError, ArithmeticError) as error:  # the last two: a name or a port that is none
            reason = error
    raise NotSent(f"No connection could be made ({type(reason).__name__}).") from reason


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter and not waiter.done():
        waiter.set_result(None)
