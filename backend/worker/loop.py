"""The loop that takes rows which are due. It may be killed at any moment: then its rows are due when its leases end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter

from backend.context import AFTER_AN_OUTCOME, Context, LaneName, heard
from backend.core.generation import Failure, Generation
from backend.db import leases, operations
from backend.db.connection import Tx
from backend.logs import times
from backend.steps import announce, leased, queue, receive, release, watch
from backend.upkeep import due, tidy
from backend.worker.lanes import LEASE_MS, Lane, Row, Work, lanes, observe

BEAT_S = 8.0  # three beats fit into a lease, so one that comes late loses no row
LOOK_S = 0.2  # after so long at most it is noticed what became due by time, or by another process
PATIENCE_S = 0.05  # for a reader of the database: all of them may be at a long report
TIDY_S = 20.0
MOST_ATTEMPTS = 5  # a row that kills its worker would otherwise end every process that takes it, for ever
GAP_MS = 60_000  # without a beat for so long: the machine slept, or its clock was changed

FAILURES = Counter("reelhook_rows_failed", "Times that work on a row broke off by an error of ours", ("lane",))
ROUTINES = Counter("reelhook_routines_failed", "Times that upkeep broke off by an error of ours", ("routine",))

log = structlog.get_logger("backend.worker")


async def attempt(routine: str, job: Callable[[], Awaitable[object]]) -> None:
    """Do a piece of upkeep. An error in it is logged and counted under its name, and stops nothing else."""
    try:
        await job()
    except Exception:
        ROUTINES.labels(routine).inc()
        log.exception("routine_failed", routine=routine)


@dataclass
class Worker:
    """One worker: its name in leases, the rows it has in hand, and whether it is to stop."""

    ctx: Context
    kinds: tuple[str, ...] = ("image", "video")
    id: str = ""
    holding: set[str] = field(default_factory=set)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped_at: float = 0.0
    _seen_at: int = 0

    async def run(self) -> None:
        """Work until `stop` is called; then finish what is in hand, and return."""
        self.id = self.id or self.ctx.new_id()
        await attempt("beat", self._beat)  # first: readiness asks whether a worker lives
        jobs = [self._tend(lane) for lane in lanes(self.ctx, self.id, self.kinds)]
        jobs.append(self._go_on("receive", receive.believe, lambda: log.exception("deliveries_failed")))
        jobs.append(self._go_on("release", release.go_on, lambda: log.exception("releases_failed")))
        jobs += [self._look(), self._every(BEAT_S, "beat", self._beat), self._keep_tidy()]
        jobs.append(self._every(TIDY_S, "give_up", self._give_up))
        await asyncio.gather(*jobs)
        with contextlib.suppress(Exception):
            await self.ctx.db.write(lambda tx: operations.retire(tx, self.id))

    def stop(self) -> None:
        """Take nothing new."""
        self._stopped_at = self._stopped_at or time.monotonic()
        self.stopping.set()
        self.ctx.bell.ring()

    def stopping_s(self) -> float:
        """Return how many seconds ago it was told to stop; 0 when it was not."""
        return time.monotonic() - self._stopped_at if self._stopped_at else 0.0

    async def _tend(self, lane: Lane) -> None:
        bell, tasks = self.ctx.bell.lane(lane.name, lane.account), set[asyncio.Task[None]]()
        times.LANE_ROWS.labels(lane.name, lane.account or "").set_function(lambda: len(tasks))
        times.LANE_ROOM.labels(lane.name, lane.account or "").set_function(lambda: lane.room(len(tasks)))
        while not self.stopping.is_set():
            bell.clear()  # before the claim: what becomes due during it rings again, and is not missed
            room = lane.next(len(tasks))
            rows = await self._claim(lane, room) if room else []
            work = lane.work(list(rows))
            for row in rows:
                task = asyncio.create_task(self._do(lane, row, work))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: bell.set())
            if len(rows) < room or not room:
                await bell.wait()
        if tasks:
            await asyncio.wait(tasks)

    async def _claim(self, lane: Lane, room: int) -> Sequence[Row]:
        began = time.perf_counter()
        try:
            rows = await lane.claim(room)
        except Exception:  # a database that is busy or full must not end the loop
            log.exception("claim_failed", lane=lane.name)
            await heard(self.stopping, 1.0)
            return []
        if rows:
            times.CLAIM.observe(lane.name, time.perf_counter() - began)
        return rows

    async def _do(self, lane: Lane, row: Row, work: Work) -> None:
        """Work on one row. Whatever goes wrong, its lease ends by itself and it is tried again, MOST_ATTEMPTS times.

        A webhook to a client has a lease that is longer than its attempt, and a schedule of its own.
        """
        began = time.perf_counter()
        if isinstance(row, Generation):
            self.holding.add(row.id)  # the beat keeps its lease: a download may take longer than one
        try:
            if isinstance(row, Generation) and row.attempts > MOST_ATTEMPTS:
                await self._set_aside(row)
            else:
                await work(row)
        except Exception:
            id = row.id if isinstance(row, Generation) else row.generation_id
            FAILURES.labels(lane.name).inc()
            log.exception("row_failed", lane=lane.name, generation_id=id, attempts=row.attempts)
        finally:
            self.holding.discard(row.id)
            observe(lane, row, time.perf_counter() - began)

    async def _set_aside(self, row: Generation) -> None:
        failure = Failure("provider_failed", "It could not be worked on, five times; see the log.", retryable=True)
        await leased.fail(self.ctx, row, self.id, failure, attempts=row.attempts)
        log.error("row_set_aside", generation_id=row.id, attempts=row.attempts)

    async def _go_on(
        self, lane: LaneName, step: Callable[[Context], Awaitable[int]], failed: Callable[[], None]
    ) -> None:
        """Repeat a step while there is something to do, and again when the bell rings; `failed` logs an error in it."""
        bell = self.ctx.bell.lane(lane)
        while not self.stopping.is_set():
            bell.clear()
            try:
                if await step(self.ctx):
                    self.ctx.wake(*AFTER_AN_OUTCOME)
                    continue
            except Exception:
                failed()
            await bell.wait()

    async def _look(self) -> None:
        """Wake the lanes in which something has become due.

        It is one read for all lanes. Each lane looked by its own claim once: an idle worker took the write lock twenty
        times a second.
        """
        while not self.stopping.is_set():
            await heard(self.stopping, LOOK_S)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    lanes = await due.lanes(self.ctx, self.kinds)
                if lanes:
                    self.ctx.bell.ring_at(lanes)
            except TimeoutError:
                self.ctx.bell.ring()  # no reader is free: each lane looks for itself, by its claim
            except Exception:
                log.exception("claim_failed", lane="all")
                self.ctx.bell.ring()
                await heard(self.stopping, 1.0)

    async def _every(self, seconds: float, routine: str, job: Callable[[], Awaitable[None]]) -> None:
        while not self.stopping.is_set():
            await heard(self.stopping, seconds)
            await attempt(routine, job)

    async def _beat(self) -> None:
        """Note that this worker lives, and keep the leases of what is in hand."""
        now = self.ctx.now()
        # After a sleep of the machine every deadline looks missed, though nobody could ask meanwhile. So the time
        # that is counted against a provider begins anew.
        if not 0 <= now - self._seen_at <= GAP_MS:
            self.ctx.awake_since = now
        self._seen_at = now

        async def work(tx: Tx) -> None:
            await operations.beat(tx, self.id, ",".join(self.kinds), now)
            for id in list(self.holding):
                await leases.extend(tx, id, self.id, now + LEASE_MS)

        await self.ctx.db.write(work)

    async def _keep_tidy(self) -> None:
        """Tidy at once, since a crash may have cut a deletion off, and then every TIDY_S."""
        await attempt("tidy", self._tidy)
        await self._every(TIDY_S, "tidy", self._tidy)

    async def _tidy(self) -> None:
        await watch.heed_the_clock(self.ctx)
        await announce.heed_the_clock(self.ctx)
        await tidy.tidy(self.ctx)

    async def _give_up(self) -> None:
        await queue.give_up(self.ctx)
