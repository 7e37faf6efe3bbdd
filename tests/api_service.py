"""The real application on a free port, in a thread, without a worker: what is accepted stays queued."""

from __future__ import annotations

import asyncio
import hashlib
import io
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
import uvloop
from PIL import Image
from trails import kept, left
from transactions import bounded, twice
from webserving import Answer, ask, until

from backend import media
from backend.app import open_context
from backend.config import Settings
from backend.context import Context
from backend.core.generation import COMPLETED, PROCESSING, STORING, SUBMITTING, Failure
from backend.db import generations
from backend.db.connection import Tx
from backend.db.keys import insert as insert_key
from backend.manage import keys
from backend.steps import release
from backend.web.server import entry

T = TypeVar("T")
NOTHING_THERE = "http://127.0.0.1:9"  # a provider that is never asked: no worker runs


@dataclass(frozen=True)
class Tenant:
    """A client with a campaign and a key."""

    client_id: str
    campaign_id: str
    key: str
    key_id: str


@dataclass
class Service:
    """A running service, its context, and the loop that both live in."""

    port: int
    ctx: Context
    loop: asyncio.AbstractEventLoop
    admin: str = field(default="")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something of the service's in its own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None, **more: Any) -> Answer:
        """A request, with the admin's key unless another is given."""
        return ask(self.port, method, path, key=self.admin if key is None else key or None, json_body=body, **more)

    def key(self, client_id: str | None, **more: Any) -> tuple[str, str]:
        """A new key and its id; without a client an admin's."""
        limits = {"image_limit": "100000/minute", "video_limit": "100000/minute"}
        made = keys.make(self.ctx, "test", client_id, **(limits | more))
        self.run(self.ctx.db.write(lambda tx: insert_key(tx, made.row)))
        return made.text, made.row.id

    def tenant(self, name: str = "client") -> Tenant:
        """A new client that can work."""
        client_id = self.ask("POST", "/api/v2/clients", {"name": name}).json()["id"]
        key, key_id = self.key(client_id)
        made = self.ask("POST", "/api/v2/campaigns", {"name": "campaign"}, key=key)
        return Tenant(client_id, made.json()["id"], key, key_id)

    def generate(self, who: Tenant, kind: str = "image", **more: Any) -> dict[str, Any]:
        """An accepted generation."""
        wanted = {"campaign_id": who.campaign_id, "prompt": "a fox", **more}
        answer = self.ask("POST", f"/api/v2/generate/{kind}", wanted, key=who.key)
        assert answer.status == 202, answer.body
        return answer.json()

    def submitted(self, id: str) -> None:
        """Move it on as a worker would whose provider took it."""

        async def work(tx: Tx) -> None:
            now = self.ctx.now()
            await generations.move(tx, id, SUBMITTING, now=now, claimed_at=now)
            await generations.move(tx, id, PROCESSING, now=now, provider_id=f"p-{id}", submitted_at=now)

        self.run(self.ctx.db.write(work))

    def failed(self, id: str) -> None:
        """Let it end without a result, and what waits for it with it."""
        why = Failure("provider_failed", "It broke.", True)
        self.run(self.ctx.db.write(lambda tx: generations.move(tx, id, "failed", now=self.ctx.now(), failure=why)))
        self.release()

    def completed(self, id: str, content: bytes, poster: bytes | None = None) -> None:
        """Store its bytes and end it as a worker would; what waits for it goes on."""
        self.run(self._complete(id, content, poster))
        self.release()

    def release(self) -> None:
        """What a worker does after an end, until nothing waits for what has ended."""
        while self.run(release.go_on(self.ctx)):
            pass

    async def _complete(self, id: str, content: bytes, poster: bytes | None) -> None:
        ctx, spooled, small = self.ctx, self.ctx.spool.new(id), self.ctx.spool.new(f"{id}-poster.jpg")
        spooled.write_bytes(content)
        found = await ctx.cage.probe(spooled, place=media.OUTPUT)
        name, poster_name = id + media.extension(found.content_type), f"{id}-poster.jpg" if poster else None
        await ctx.store.put(spooled, name)
        if poster:
            small.write_bytes(poster)
            await ctx.store.put(small, f"{id}-poster.jpg")
        digest = hashlib.sha256(content).hexdigest()

        async def work(tx: Tx) -> None:
            now = ctx.now()
            await generations.move(tx, id, SUBMITTING, now=now, claimed_at=now)
            await generations.move(tx, id, STORING, now=now, provider_id=f"p-{id}", submitted_at=now)
            fields = {"file_name": name, "poster_name": poster_name, "content_type": found.content_type}
            sizes = {"width": found.width, "height": found.height, "duration_s": found.duration_s}
            fields |= {"bytes": len(content), "sha256": digest, "cost_actual_micros": 39_000, **sizes}
            await generations.move(tx, id, COMPLETED, now=now, **fields)

        await ctx.db.write(work)


@contextmanager
def running(folder: Path, **more: Any) -> Iterator[Service]:
    """A service over an empty database and an empty storage in this folder."""
    given: dict[str, Any] = {
        "database_url": f"sqlite:///{folder}/test.db",
        "storage_url": f"file:{folder}/media",
        "REPLICATE_API_KEY": "r8_nobody",
        "replicate_base_url": NOTHING_THERE,
        "replicate_webhook_secret": "whsec_" + "A" * 32,
        "base_url": None,
        "ngrok_url": None,
        "auth_mode": "keys",
        "redis_url": None,
        "min_free_mb": 0,
        "write_rate_limit": "100000/minute",
    }
    settings = Settings(_env_file=None, **(given | more))
    started: list[Service] = []
    stop: list[uvicorn.Server] = []
    thread = threading.Thread(target=_run, args=(_serve(settings, started, stop),), daemon=True)
    thread.start()
    service = until(lambda: started and stop and stop[0].started and started[0])
    service.admin, _ = service.key(None)
    with kept() as log, left(folder / "test.db", log.__str__), bounded(), twice():
        try:
            yield service
        finally:
            stop[0].should_exit = True
            thread.join(20)


def _run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop, as the product: asyncio's own loop leaves a listener's connections waiting 40 ms for each answer."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def _serve(settings: Settings, started: list[Service], stop: list[uvicorn.Server]) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    async with open_context(settings.at_port(port)) as ctx:
        stop.append(uvicorn.Server(entry.config(entry.build(ctx))))
        started.append(Service(port, ctx, asyncio.get_running_loop()))
        await stop[0].serve(sockets=[listener])


def png(size: tuple[int, int] = (64, 48), colour: str = "#336699", kind: str = "PNG") -> bytes:
    """A picture's bytes."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def form(content: bytes, name: str = "file", filename: str = "a.png") -> tuple[bytes, Mapping[str, str]]:
    """A multipart body with one file, and its headers."""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--b--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=b"}
