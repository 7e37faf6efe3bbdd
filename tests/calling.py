"""Both Python clients behind one face, and a go-between on the wire that spoils what a test wants."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import reelhook


class LoopThread:
    """A loop in a thread of its own. Nothing is begun after its end, and nothing is left in the middle."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._door = threading.Lock()
        self.closed = False

    def run(self, work: Awaitable[Any]) -> Any:
        async def wrapped() -> Any:
            return await work

        with self._door:
            if self.closed:
                raise RuntimeError("the loop is closed")
            future = asyncio.run_coroutine_threadsafe(wrapped(), self._loop)
        return future.result(100)

    def close(self) -> None:
        with self._door:
            self.closed = True
        asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


class Blocking:
    """An AsyncClient in a loop of its own, called as if it blocked: what holds for one client is tried on both."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self._loop = LoopThread()
        self._client = self._loop.run(self._make(*given, **named))

    async def _make(self, *given: Any, **named: Any) -> reelhook.AsyncClient:
        return reelhook.AsyncClient(*given, **named)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*given: Any, **named: Any) -> Any:
            made = method(*given, **named)
            return self._loop.run(made) if inspect.isawaitable(made) else self._each(made)

        return call

    def _each(self, items: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            if not self._loop.closed:
                self._loop.run(items.aclose())

    def close(self) -> None:
        self._loop.run(self._client.close())
        self._loop.close()


CLIENTS: dict[str, Callable[..., Any]] = {"sync": reelhook.Client, "async": Blocking}


@dataclass
class GoBetween:
    """Passes bytes on between a client and the service; spoils the next answers as it is told."""

    upstream: tuple[str, int]
    origin: str = ""
    swallow: int = 0  # answers to POSTs that the client never sees
    cut_after: list[int] = field(default_factory=list)  # bytes of the next files' answers after which the line is dead
    alter: bool = False  # one byte of a file is another one
    requests: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    streams: list[socket.socket] = field(default_factory=list)

    def drop(self) -> None:
        """Cut every line."""
        for each in self.streams:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        asked = [b""]
        with client, suppress(OSError), socket.create_connection(self.upstream) as server:
            self.streams.append(client)
            threading.Thread(target=self._requests, args=(client, server, asked), daemon=True).start()
            with suppress(OSError):
                self._answers(client, server, asked)
            client.shutdown(socket.SHUT_RDWR)

    def _requests(self, client: socket.socket, server: socket.socket, asked: list[bytes]) -> None:
        with suppress(OSError):
            while chunk := client.recv(1 << 16):
                self.requests.append(chunk)
                asked[0] = chunk
                server.sendall(chunk)
            server.shutdown(socket.SHUT_WR)

    def _answers(self, client: socket.socket, server: socket.socket, asked: list[bytes]) -> None:
        passed, request = 0, b""
        while chunk := server.recv(1 << 14):
            if self.swallow and asked[0].startswith((b"POST", b"{")):
                self.swallow -= 1
                return
            passed, request = (passed if request is asked[0] else 0) + len(chunk), asked[0]
            if b"/data HTTP" in request and self.cut_after and passed > self.cut_after[0]:
                client.sendall(chunk[: len(chunk) - (passed - self.cut_after.pop(0))])
                return
            if b"/data HTTP" in request and self.alter and passed > 2000:
                self.alter, chunk = False, chunk[:-1] + bytes([chunk[-1] ^ 1])
            client.sendall(chunk)
            self.answers.append(chunk)


@contextmanager
def between(origin: str) -> Iterator[GoBetween]:
    """A go-between in front of the service at this origin."""
    host, _, port = origin.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        there = GoBetween((host, int(port)), f"http://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=there._serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield there
        listener.shutdown(socket.SHUT_RDWR)
        there.drop()
