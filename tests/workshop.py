"""The whole service in a thread of the test, with a clock that can be put forward and steps to be taken singly."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from auditor import audit
from elsewhere import Elsewhere
from emulating import Provider, until
from face import Face
from trails import kept, left
from transactions import bounded, twice
from webserving import listen

from backend.app import open_context
from backend.config import Settings
from backend.context import Context, now_ms
from backend.core.generation import FINAL, Generation
from backend.core.people import Caller
from backend.db import generations
from backend.manage import clients
from backend.steps import adopt, collect, lost, queue, submit, watch
from backend.web.server import entry
from backend.worker import LEASE_MS, Worker

T = TypeVar("T")
ME = "a-worker-of-the-test"


@dataclass
class Clock:
    """The real time, and as much more as the test wants."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms

    def forward(self, seconds: float) -> None:
        self.ahead_ms += int(seconds * 1000)


@dataclass
class Workshop(Face):
    """A running service; `finished` is False when the story may leave something open.

    `changed` has the rows that each of its transactions changed, `log` gives the last lines that it logged.
    """

    folder: Path = Path()
    ctx: Context = field(default=None)  # type: ignore[assignment]
    loop: asyncio.AbstractEventLoop = field(default=None)  # type: ignore[assignment]
    clock: Clock = field(default_factory=Clock)
    finished: bool = True
    changed: list[int] = field(default_factory=list)
    log: Callable[[], str] = str

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something of the service's in its own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def row(self, id: str) -> Generation:
        found = self.run(self.ctx.db.read(lambda tx: generations.get(tx, id)))
        assert found is not None
        return found

    def forward(self, seconds: float) -> None:
        """Put the clock forward; what is due by then is looked at."""
        self.clock.forward(seconds)
        self.loop.call_soon_threadsafe(self.ctx.wake)

    def submit_next(self) -> list[str]:
        """What a worker does with the queue, once."""

        async def step() -> list[str]:
            rows = await queue.claim(self.ctx, ME, ("image", "video"), 64, LEASE_MS)
            await asyncio.gather(*(submit.send(self.ctx, row, ME) for row in rows))
            return [row.id for row in rows]

        return self.run(step())

    def look(self, status: str) -> list[str]:
        """What a worker does with the rows of one status that are due, once."""

        async def step() -> list[str]:
            rows = await watch.claim(self.ctx, ME, status, 64, LEASE_MS)
            for row in rows:
                await _work(self.ctx, row)
            return [row.id for row in rows]

        return self.run(step())


async def _work(ctx: Context, row: Generation) -> None:
    match row.status:
        case "submitting":
            await lost.mark(ctx, row, ME)
        case "unclear":
            await adopt.look_for(ctx, [row], ME)(row)
        case "processing":
            await watch.poll(ctx, row, ME)
        case "storing":
            await collect.store(ctx, row, ME)


@contextmanager
def working(
    folder: Path,
    provider: Provider,
    *,
    worker: bool = True,
    webhooks: bool = True,
    ahead_s: float = 0,
    away: Elsewhere | None = None,
    **more: Any,
) -> Iterator[Workshop]:
    """A service on a free port over the database and the storage in `folder`; audited when the story is over.

    With `away` files are stored there, and none in `folder`. It is born `ahead_s` seconds later than now: what was
    there before has been left alone for so long.
    """
    listener = listen()
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = _settings(folder, provider, base_url=origin if webhooks else None, **more)
    started: list[Callable[[], None]] = []
    shop = Workshop(origin, folder=folder, clock=Clock(int(ahead_s * 1000)))
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(shop, settings, listener, worker, started, away)), daemon=True
    )
    thread.start()
    stop = until(lambda: started and started[0])
    shop.begin()
    with kept() as log, left(folder / "reelhook.db", log.__str__), bounded() as shop.changed, twice():
        shop.log = log.__str__
        try:
            yield shop
            if worker and shop.finished:
                until(lambda: not _open_rows(shop))
        finally:
            stop()
            thread.join(20)
            shop.close()
    if away:
        away.lay_out(folder / "media")
    audit(folder, provider.ledger, finished=shop.finished)


def _settings(folder: Path, provider: Provider, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "database_url": f"sqlite:///{folder}/reelhook.db",
        "storage_url": f"file:{folder}/media",
        "REPLICATE_API_KEY": "r8_emulator",
        "replicate_base_url": f"{provider.server.origin}/v1",
        "replicate_webhook_secret": None,
        "ngrok_url": None,
        "redis_url": None,
        "auth_mode": "dev",
        "image_rate_limit": "100000/minute",
        "video_rate_limit": "100000/minute",
        "write_rate_limit": "100000/minute",
        "min_free_mb": 0,
    }
    return Settings(_env_file=None, **(given | more))


async def _serve(
    shop: Workshop,
    settings: Settings,
    listener: socket.socket,
    worker: bool,
    started: list[Callable[[], None]],
    away: Elsewhere | None,
) -> None:
    async with open_context(settings) as ctx:
        ctx.now = shop.clock
        if away:
            ctx.spool, ctx.store = away.spool, away
        shop.ctx, shop.loop = ctx, asyncio.get_running_loop()
        client = await ctx.db.write(lambda tx: clients.dev_client(tx, ctx))
        web = uvicorn.Server(entry.config(entry.build(ctx, Caller("dev", client.id, admin=True))))
        works = Worker(ctx)
        jobs = [asyncio.create_task(works.run())] if worker else []
        serving = asyncio.create_task(web.serve(sockets=[listener]))
        await asyncio.to_thread(until, lambda: web.started)
        started.append(lambda: setattr(web, "should_exit", True))
        await serving
        works.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*jobs), 10)


def _open_rows(shop: Workshop) -> bool:
    finals = ", ".join(f"'{status}'" for status in FINAL)
    rows = shop.run(
        shop.ctx.db.read(
            lambda tx: tx.all(
                f"SELECT id FROM generations WHERE status NOT IN ({finals}) "  # noqa: S608
                "UNION ALL SELECT id FROM deliveries WHERE handled_at IS NULL "
                "UNION ALL SELECT source_id FROM releases LIMIT 1"
            )
        )
    )
    return bool(rows)
