"""Connections for `backend.http`: kept alive for the operator's addresses, used once for everybody else's.

No client library's pool is used. httpx 0.28 loses a slot for good when a request is cancelled (encode/httpcore#1093).
aiohttp 3.14 takes what a server said while nobody asked for the answer to the next request, and sends some requests
again when a kept-alive connection proves dead.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx

from backend.core.errors import NotSent
from backend.http.addresses import Network, check_addresses
from backend.http.names import Resolver
from backend.http.requests import Origin
from backend.http.sockets import Stream, connect

MAX_IN_FLIGHT = 200
MAX_IDLE = 100  # for each origin
KEEP_ALIVE_S = 4.0  # below the 5 s after which uvicorn and Node close: fewer requests meet a closing connection
CONNECT_S = 10.0


class Line:
    """A connection that is used for one request after the other."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._kept_until = 0.0

    def start(self, deadline: float) -> None:
        """Begin a request. Until `keep` is called, the connection is not used for another one."""
        self.stream.deadline, self.stream.sent = deadline, False
        self._kept_until = 0.0

    def keep(self) -> None:
        """End a request: the connection may be used again."""
        self._kept_until = time.monotonic() + KEEP_ALIVE_S

    def is_usable(self) -> bool:
        # Quiet too: what a server said while nobody asked would be taken for the answer to the next request.
        return time.monotonic() < self._kept_until and self.stream.is_quiet


class Lines:
    """All connections of one HTTP client."""

    def __init__(self, networks: Sequence[Network], resolver: Resolver) -> None:
        self._networks = tuple(networks)
        self._resolve = resolver
        self._idle: dict[Origin, deque[Line]] = {}
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)

    @asynccontextmanager
    async def pooled(self, origin: Origin, deadline: float, connect_s: float) -> AsyncIterator[Line]:
        """A kept-alive connection or a new one, without a check of the address. Raises `NotSent`."""
        await self._take_slot(deadline)
        try:
            line = await self._take_idle(origin) or await self._connect(origin, deadline, connect_s)
            line.start(deadline)
            try:
                yield line
            finally:
                await self._give_back(origin, line)
        finally:
            self._slots.release()

    @asynccontextmanager
    async def guarded(
        self, origin: Origin, deadline: float, *, is_trusted: bool, head_s: float | None = None
    ) -> AsyncIterator[Line]:
        """A connection for one request to an address that was checked. Raises `BlockedAddress`, `NotSent`.

        With `head_s` its first deadline is so many seconds away; whoever reads on puts it off.
        """
        line = await self._connect(origin, deadline, CONNECT_S, is_checked=not is_trusted)
        line.start(deadline if head_s is None else min(deadline, time.monotonic() + head_s))
        try:
            yield line
        finally:
            await line.stream.aclose()

    async def close(self) -> None:
        for lines in self._idle.values():
            for line in lines:
                await line.stream.aclose()
        self._idle.clear()

    async def _take_slot(self, deadline: float) -> None:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._slots.acquire()
        except TimeoutError:
            raise NotSent("Too many requests are in flight.") from None

    async def _take_idle(self, origin: Origin) -> Line | None:
        lines = self._idle.get(origin)
        while lines:
            line = lines.pop()  # the youngest: the least likely to be closing
            if line.is_usable():
                return line
            await line.stream.aclose()
        return None

    async def _give_back(self, origin: Origin, line: Line) -> None:
        lines = self._idle.setdefault(origin, deque())
        if line.is_usable() and len(lines) < MAX_IDLE:
            lines.append(line)
        else:
            await line.stream.aclose()
        if lines and not lines[0].is_usable():
            await lines.popleft().stream.aclose()

    async def _connect(self, origin: Origin, deadline: float, connect_s: float, *, is_checked: bool = False) -> Line:
        scheme, host, port = origin
        ends_at = min(deadline, time.monotonic() + connect_s)
        tls = await _tls() if scheme == "https" else None
        # Resolved once: what is checked is what is connected to, whatever the name says a moment later.
        addresses = await self._addresses(host, port, ends_at)
        if is_checked:
            check_addresses(addresses, port, self._networks)
        return Line(await connect(addresses, port, tls, host, ends_at))

    async def _addresses(self, host: str, port: int, ends_at: float) -> Sequence[str]:
        try:
            async with asyncio.timeout(ends_at - time.monotonic()):
                return await self._resolve(host, port)
        except (OSError, ValueError, ArithmeticError) as error:  # a label longer than DNS has, a port that is none
            raise NotSent("The host name could not be resolved.") from error


async def _tls() -> ssl.SSLContext:
    try:
        return await asyncio.to_thread(tls_context)
    except OSError as error:
        raise NotSent("The certificates that are trusted cannot be read.") from error


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The one TLS context, with the system's roots and certifi's. It takes 30 ms: make it in a thread."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context
