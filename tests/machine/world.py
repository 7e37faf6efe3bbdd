"""One service after the other over the same files, in a thread beside the test: each has its own mains."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from auditor import Finding, creates_of, findings, witness
from emulating import Provider, until
from starlette.types import Receive, Scope, Send
from workshop import _settings

from backend.app import open_context
from backend.context import Context
from backend.core.generation import Generation
from backend.core.people import Caller
from backend.db import leases
from backend.emulator import WEBHOOK_SECRET
from backend.http import Http
from backend.manage import clients
from backend.providers import registry, signatures
from backend.providers.base import Means
from backend.steps import queue, receive, release, watch
from backend.upkeep import orphans, tidy
from backend.web.server import entry
from backend.worker import LEASE_MS
from backend.worker.lanes import lanes as lanes_of
from machine.double import PATH, Double, Message
from machine.power import Border, Mains, PowerCut

T = TypeVar("T")
SECRET = signatures.read_secret(WEBHOOK_SECRET)
LANES = ("queued", "submitting", "unclear", "processing", "storing")
ROUNDS = 60
UNFINISHED = "SELECT id, status FROM generations WHERE finished_at IS NULL"
UNHEARD = "SELECT id FROM deliveries WHERE handled_at IS NULL"
UNRELEASED = "SELECT source_id FROM releases"


@dataclass
class Clock:
    """A time that stands still unless it is put forward: a life can be lived again exactly."""

    at_ms: int = 1_800_000_000_000

    def __call__(self) -> int:
        return self.at_ms

    def forward(self, seconds: float) -> None:
        self.at_ms += int(seconds * 1000)


@dataclass(frozen=True)
class Hold:
    """A row that a worker has taken; it may come back to it when the lease is long over."""

    worker: str
    lane: str
    row: Generation
    ctx: Context


@dataclass
class House:
    """The thread, the port and the loop that all services of a test live in, one after the other."""

    origin: str = ""
    loop: asyncio.AbstractEventLoop = field(default=None)  # type: ignore[assignment]
    service: Any = None
    provider: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whoever is alive answers."""
        await (self.provider if scope["path"].startswith(PATH) else self.service)(scope, receive, send)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@contextmanager
def housing() -> Iterator[House]:
    """A house on a free port, for any number of worlds."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    house = House(f"http://127.0.0.1:{listener.getsockname()[1]}")
    web = uvicorn.Server(uvicorn.Config(house, lifespan="off", log_level="critical", access_log=False))

    async def live() -> None:
        house.loop = asyncio.get_running_loop()
        await web.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    until(lambda: web.started)
    try:
        yield house
    finally:
        web.should_exit = True
        thread.join(10)


@dataclass
class World:
    """A provider, and a service that is there until its power is cut; then another over the same files."""

    house: House
    folder: Path
    clock: Clock = field(default_factory=Clock)
    accepted: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    deaths: int = 0
    workers: int = 0

    def open(self) -> None:
        """The provider and the first service, with a campaign and a witness."""
        self.double = Double(self.house.origin, self.clock)
        self.house.provider = self.double.app()
        self.http = httpx.Client(base_url=self.house.origin, timeout=30, trust_env=False)
        self.tasks: set[asyncio.Task[None]] = set()
        self.start()
        answer = self.http.post("/api/v2/campaigns", json={"name": "lives"})
        self.campaign_id = answer.json()["id"]
        witness(self.folder)

    def close(self) -> None:
        self.cut()
        self.http.close()

    def start(self) -> None:
        """What a start does: the leases of the dead end, half files go."""
        self.house.run(self._start())

    async def _start(self) -> None:
        self.mains, self.stack = Mains(), AsyncExitStack()
        shown = Provider(_At(self.house.origin), self.http)  # type: ignore[arg-type]
        settings = _settings(self.folder, shown, base_url=self.house.origin)
        settings = settings.model_copy(update={"replicate_base_url": f"{self.house.origin}{PATH}/v1"})
        ctx = await self.stack.enter_async_context(open_context(settings))
        http: Http = Border(ctx.http, self.mains)  # type: ignore[assignment]
        means = Means(http, ctx.spool, self.clock, ctx.store, ctx.cage)
        providers = registry.offered(settings, means, ctx.catalog.providers)
        self.ctx = Context(
            settings=settings,
            db=Border(ctx.db, self.mains),  # type: ignore[arg-type]
            http=http,
            spool=Border(ctx.spool, self.mains),  # type: ignore[arg-type]
            store=Border(ctx.store, self.mains),  # type: ignore[arg-type]
            catalog=ctx.catalog,
            providers=providers,
            data_key=ctx.data_key,
            now=self.clock,
            cage=ctx.cage,
        )
        client = await ctx.db.write(lambda tx: clients.dev_client(tx, self.ctx))
        self.house.service = entry.build(self.ctx, Caller("dev", client.id, admin=True))
        await ctx.spool.sweep(0)
        await ctx.db.write(lambda tx: leases.release_all(tx, self.clock()))

    def cut(self) -> None:
        """The power goes: whatever was under way ends here, and what it had not written is lost."""
        self.house.run(self._cut())

    async def _cut(self) -> None:
        self.mains.on = False
        self.double.release()
        if self.tasks:
            await asyncio.wait(self.tasks)
        await self.stack.aclose()
        self.deaths += 1

    def kill(self) -> None:
        self.cut()
        self.start()

    def wanted(self, **body: Any) -> dict[str, Any]:
        return {"campaign_id": self.campaign_id, **body}

    def status(self, id: str) -> str:
        """As clients are shown it."""
        return str(self.http.get(f"/api/v2/generations/{id}").json()["status"])

    def kind(self, id: str) -> str:
        return str(self.http.get(f"/api/v2/generations/{id}").json()["kind"])

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        """A client's request; what it promises is remembered."""
        answer = self.http.post(path, json=body, headers=headers)
        if answer.status_code == 202:
            made = answer.json()
            self.accepted.update(one["id"] for one in made.get("items", [made]) if one["id"] not in self.deleted)
        return answer

    def due(self) -> list[str]:
        """The lanes in which there is something to do now."""
        statement = f"SELECT DISTINCT status FROM generations WHERE due_at <= {self.clock()} ORDER BY 1"  # noqa: S608
        return [status for (status,) in self.rows(statement) if status in LANES]

    def take(self, lane: str, most: int = 1) -> list[Hold]:
        """What a new worker finds to do in a lane."""
        self.workers += 1
        me = f"worker{self.workers}"

        async def claim() -> list[Generation]:
            if lane == "queued":
                return await queue.claim(self.ctx, me, ("image", "video"), most, LEASE_MS)
            return await watch.claim(self.ctx, me, lane, most, LEASE_MS)

        return [Hold(me, lane, row, self.ctx) for row in self._survive(claim()) or []]

    def work(self, hold: Hold) -> None:
        """Its step, until it has ended or the provider holds up its answer."""
        self.house.run(self._work(hold))
        self.revive()

    async def _work(self, hold: Hold) -> None:
        task = asyncio.create_task(_step(hold))
        self.tasks.add(task)
        held = asyncio.create_task(self.double.holding.wait())
        await asyncio.wait({task, held}, return_when=asyncio.FIRST_COMPLETED)
        self.double.holding.clear()
        held.cancel()
        self._settle()

    def answer(self) -> None:
        """The provider answers what it had held up."""
        self.house.run(self._answer())
        self.revive()

    async def _answer(self) -> None:
        self.double.release()
        if self.tasks:
            await asyncio.wait(self.tasks)
        self._settle()

    def _settle(self) -> None:
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.discard(task)
            task.result()

    def believe(self) -> None:
        """What is kept of webhooks is acted on."""
        self._survive(receive.believe(self.ctx))

    def release(self) -> bool:
        """A bite of what waited for those that have ended goes on, or fails; whether one had ended."""
        return bool(self._survive(release.go_on(self.ctx)))

    def tidy(self) -> None:
        self._survive(tidy.tidy(self.ctx))
        self._survive(queue.give_up(self.ctx))

    def send(self, message: Message, *, secret: bytes = SECRET, url: str | None = None) -> int:
        """A webhook; the status it is answered with."""
        at = self.clock() // 1000
        headers = {
            "webhook-id": message.id,
            "webhook-timestamp": str(at),
            "webhook-signature": signatures.sign(secret, message.id, at, message.body),
        }
        answer = self.http.post(url or message.url, content=message.body, headers=headers)
        return answer.status_code

    def _survive(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do it; when the power goes meanwhile there is another service afterwards."""

        async def until_dead() -> T | None:
            try:
                return await work
            except PowerCut:
                return None

        result = self.house.run(until_dead())
        self.revive()
        return result

    def revive(self) -> None:
        """A new service, if the power went."""
        if not self.mains.on:
            self.kill()

    def rows(self, statement: str = UNFINISHED) -> list[tuple[Any, ...]]:
        """Read the database beside the service."""
        with closing(sqlite3.connect(f"file:{self.folder}/reelhook.db?mode=ro", uri=True)) as connection:
            return connection.execute(statement).fetchall()

    def findings(self, *, finished: bool) -> list[Finding]:
        """What is wrong now."""
        ledger = self.double.ledger
        found = findings(self.folder, ledger, self.accepted, finished=finished)
        stopped = "SELECT id FROM witness WHERE now = 'canceled' AND was IN ('waiting', 'queued')"
        for (id,) in self.rows(stopped):
            if any(one["created"] for one in creates_of(ledger, id)):
                found.append(Finding("paid twice", f"{id} was canceled before it was sent, and sent"))
        return found

    def end(self) -> None:
        """No more trouble: the provider finishes all it has, time passes, and workers do what is due."""
        self.double.plan = "taken"
        self.double.troubles.clear()
        self.answer()
        for _ in range(ROUNDS):
            for prediction in self.double.predictions:
                self.double.progress(prediction, "succeeded")
            for lane in LANES:
                for hold in self.take(lane, 64):
                    self.work(hold)
            self.believe()
            while self.release():
                pass
            if not any(self.rows(statement) for statement in (UNFINISHED, UNHEARD, UNRELEASED)):
                break
            self.clock.forward(61)
        self.tidy()
        self._survive(orphans.sweep_orphans(self.ctx))


async def _step(hold: Hold) -> None:
    """What a worker does with a row of this lane: the worker's own table of them."""
    lanes = {"queued": "submit", "submitting": "lost", "unclear": "unclear", "processing": "poll", "storing": "collect"}
    name, account = lanes[hold.lane], hold.row.account_key
    (lane,) = (
        lane
        for lane in lanes_of(hold.ctx, hold.worker, ("image", "video"))
        if (lane.name, lane.account) == (name, account)
    )
    try:
        await lane.work([hold.row])(hold.row)
    except PowerCut:
        pass  # the row is as far as it came


@dataclass(frozen=True)
class _At:
    origin: str
