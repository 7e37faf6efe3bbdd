"""Receivers of our webhooks on real sockets: good ones, slow ones, and those that answer nonsense."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from api_service import Service, Tenant
from peers import Peer

from backend.core.webhooks import Outgoing
from backend.steps import announce

ME = "a-worker-of-the-test"


@dataclass(frozen=True)
class Letter:
    """One webhook as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(json.loads(self.body)["type"])


def status(code: int, headers: str = "", body: bytes = b"") -> bytes:
    """A whole answer."""
    return f"HTTP/1.1 {code} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


OK = status(200)


@dataclass
class Receiver:
    """Takes webhooks; answers with `answers` in turn, then with `usual`. An answer is bytes or a peer of its own."""

    origin: str = ""
    got: list[Letter] = field(default_factory=list)
    answers: list[bytes | Peer] = field(default_factory=list)
    usual: bytes | Peer = OK

    @property
    def url(self) -> str:
        return f"{self.origin}/hook"

    @property
    def ids(self) -> list[str]:
        return [letter.id for letter in self.got]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.got.append(await _read(reader))
            answer = self.answers.pop(0) if self.answers else self.usual
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # who sent it has hung up
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Letter:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    return Letter(first.split(" ")[1], headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@contextmanager
def receiving(**given: Any) -> Iterator[Receiver]:
    """A receiver on a port of its own, in a thread of its own."""
    receiver, loop = Receiver(**given), asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, limit=1 << 24)
        receiver.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await reader.read()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A head that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-A: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)  # slow on purpose


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ten megabytes, with bytes no text has."""
    writer.write(status(200)[:-2].replace(b"Content-Length: 0", b"Content-Length: 10000000") + b"\r\n")
    for _ in range(1000):
        writer.write(b"a\x00\xff\xfeb" * 2000)
        await writer.drain()


def endpoint(service: Service, who: Tenant, url: str, *events: str) -> dict[str, Any]:
    """A new endpoint, with its secret."""
    answer = service.ask("POST", "/api/v2/webhook-endpoints", {"url": url, "events": list(events)}, key=who.key)
    assert answer.status == 201, answer.body
    made: dict[str, Any] = answer.json()
    return made


def happen(service: Service, who: Tenant, **wanted: Any) -> str:
    """Something clients are told of: a generation is asked for and canceled."""
    id = str(service.generate(who, **wanted)["id"])
    assert service.ask("POST", f"/api/v2/generations/{id}/cancel", {}, key=who.key).status == 200
    return id


def tell(service: Service, limit: int = 100) -> list[Outgoing]:
    """What a worker does with the deliveries that are due, once."""

    async def step() -> list[Outgoing]:
        rows = await announce.claim(service.ctx, ME, limit)
        await asyncio.gather(*(announce.send(service.ctx, row) for row in rows))
        return rows

    return service.run(step())


def deliveries(service: Service, who: Tenant, query: str = "") -> list[dict[str, Any]]:
    """The log, newest first."""
    answer = service.ask("GET", f"/api/v2/webhook-deliveries?{query}", key=who.key)
    assert answer.status == 200, answer.body
    items: list[dict[str, Any]] = answer.json()["items"]
    return items
