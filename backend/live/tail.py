"""The end of the list of events: it is read once for all listeners, and each gets every event once and in order.

    with tail.subscribe(topic, await tail.last_id(topic)) as listener:
        while not listener.ended:
            for message in await listener.more(within_s=15): ...

    rows = await tail.wait_for([id], within_s=60)

A listener first reads the events that are there from the database. Then it gets what the tail hands out. One that takes
nothing falls behind: it costs a queue of bounded length and nobody else's time, and reads from the database again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakValueDictionary

import structlog

from backend.context import Context, heard
from backend.core import formats
from backend.core.errors import Problem
from backend.core.events import Event
from backend.core.generation import FINAL, PROCESSING, Generation
from backend.db import events, feed
from backend.db.connection import Tx
from backend.db.feed import Topic
from backend.live import shown
from backend.live.listener import PAGE, Listener, Told
from backend.live.waits import LOOK_S, Waits

REST_S = 0.03  # between two looks, however often the bell rings
MOST_STANDINGS = 5_000
CATCHING_UP = 2  # who reads what was missed at a time, and one of a topic: the database is everybody's
PROGRESS = "generation.progress"
FINAL_TYPES = frozenset(f"generation.{status}" for status in FINAL)

log = structlog.get_logger("backend.live.tail")


class Tail:
    """The tail of one process. It reads from the database only while somebody listens or waits."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._by_topic: dict[Topic, set[Listener]] = {}
        self._waits = Waits(ctx.db)
        self._bell: asyncio.Event | None = None
        self._running: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()  # whatever is committed from now on is handed out
        self._last = ""
        self._progress: dict[str, float] = {}
        self._progress_at = 0.0
        self._places = asyncio.Semaphore(CATCHING_UP)
        self._turns: WeakValueDictionary[Topic, asyncio.Lock] = WeakValueDictionary()
        self.stopped = False

    @contextmanager
    def subscribe(self, topic: Topic, after: str) -> Iterator[Listener]:
        """Listen from the first event after this id.

        `last_id` gives the id for "from now on"; "" means from the beginning.
        """
        listener = Listener(topic, after, self._page)
        with self._listening([listener]):
            yield listener

    async def last_id(self, topic: Topic) -> str:
        """Return the id of the last event of the topic that is committed; "" when it has none."""
        return await self._ctx.db.read(lambda tx: feed.last_id(tx, topic))

    async def wait_for(self, ids: Sequence[str], within_s: float) -> list[Generation]:
        """Return the generations in the order of `ids`: when all are final, or as they are when the time is over.

        One that does not exist, or is deleted meanwhile, is left out and not waited for. When the process stops it
        returns at once. Raises Unavailable.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        with self._waits.of(ids) as wait:
            self._keep_running()
            await self._waits.look_for(wait)
            while not wait.is_over and not self.stopped and (left_s := end - loop.time()) > 0:
                self._keep_running()
                await heard(wait.bell, min(left_s, LOOK_S))
                wait.bell.clear()
            if not wait.is_over:
                await self._waits.look_for(wait)
            return wait.rows

    def stop(self) -> None:
        """End all listeners now, and every later one at once."""
        self.stopped = True
        self._end_all()
        self._ready.set()
        if self._bell is not None:
            self._bell.set()

    @contextmanager
    def _listening(self, listeners: Sequence[Listener]) -> Iterator[None]:
        for listener in listeners:
            self._by_topic.setdefault(listener.topic, set()).add(listener)
        self._keep_running()
        try:
            yield
        finally:
            for listener in listeners:
                there = self._by_topic.get(listener.topic, set())
                there.discard(listener)
                if not there:
                    self._by_topic.pop(listener.topic, None)

    def _keep_running(self) -> None:
        # A task that failed is started again by the next listener or waiter; nobody else would notice.
        if self.stopped:
            self._end_all()
        elif self._running is None:
            self._bell = self._bell or self._ctx.bell.lane("stream")
            self._running = asyncio.create_task(self._run(self._bell))
            self._running.add_done_callback(self._report)

    def _end_all(self) -> None:
        for listener in [one for there in self._by_topic.values() for one in there]:
            listener.end()
        self._waits.wake()

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("tail_failed", exc_info=error)

    async def _run(self, bell: asyncio.Event) -> None:
        try:
            while (self._by_topic or self._waits) and not self.stopped:
                bell.clear()
                if not await self._look_at_all():
                    await asyncio.sleep(REST_S)
                    await heard(bell, LOOK_S)
        finally:
            # In one go with the loop's end: who comes now waits for the next run, which begins with what is last then.
            self._ready.set()  # whoever waits for it goes on, and sees that this is the end
            self._ready.clear()
            self._running, self._progress = None, {}
            self._end_all()  # nobody is left, unless it failed: then they come back by themselves

    async def _look_at_all(self) -> bool:
        """Hand out what is new, and return whether there is more.

        Trouble with the database is logged: the next look tries again.
        """
        try:
            if not self._ready.is_set():
                self._last = await self._ctx.db.read(events.last_id)
                self._ready.set()
            more = await self._look_at_events()
            await self._waits.look()
            if time.monotonic() - self._progress_at >= LOOK_S:
                self._progress_at = time.monotonic()
                await self._look_at_progress()
        except Problem as trouble:
            log.warning("tail_waits", why=trouble.message)
            return False
        return more

    async def _look_at_events(self) -> bool:
        # One read serves all listeners: a thousand that each read would hold up every other request.
        found = await self._ctx.db.read(lambda tx: feed.page(tx, Topic(), self._last, PAGE))
        for event, row in found:
            if listeners := self._listeners_to(event.generation_id, event.campaign_id, event.client_id):
                _tell(listeners, self._render(event, row))
            if row and event.type in FINAL_TYPES:
                self._waits.tell(row)
            self._last = event.id
        return len(found) == PAGE

    async def _look_at_progress(self) -> None:
        """Tell progress to those who listen now. It is never kept: a listener that missed it gets the next one."""
        standings = await self._ctx.db.read(lambda tx: feed.standings(tx, MOST_STANDINGS))
        changed = [one for one in standings if self._progress.get(one.id) != one.progress]
        self._progress = {one.id: one.progress for one in standings}
        wanted = [one.id for one in changed if self._listeners_to(one.id, one.campaign_id, one.client_id)]
        for start in range(0, len(wanted), PAGE):
            ids = wanted[start : start + PAGE]
            for row in await self._ctx.db.read(lambda tx, ids=ids: feed.named(tx, ids)):  # type: ignore[misc]
                if row.status == PROCESSING:
                    _tell(self._listeners_to(row.id, row.campaign_id, row.client_id), self._render_progress(row))

    def _listeners_to(self, generation_id: str | None, campaign_id: str | None, client_id: str) -> list[Listener]:
        topics = [Topic(), Topic("client", client_id)]
        topics += [Topic("campaign", campaign_id)] if campaign_id else []
        topics += [Topic("generation", generation_id)] if generation_id else []
        return [listener for topic in topics for listener in self._by_topic.get(topic, ())]

    async def _page(self, topic: Topic, after: str) -> tuple[list[Told], str]:
        await self._ready.wait()

        async def work(tx: Tx) -> tuple[list[tuple[Event, Generation | None]], str]:
            last = await events.last_id(tx)  # first: what is committed between the two is then read twice, not never
            return await feed.page(tx, topic, after, PAGE), last

        # Many come back at once after a restart of the process, mostly to the same topics.
        turn = self._turns.setdefault(topic, asyncio.Lock())
        async with turn, self._places:
            found, last = await self._ctx.db.read(work)
            told = [self._render(event, row) for event, row in found]
        return told, max(last, found[-1][0].id if found else "")

    def _render(self, event: Event, row: Generation | None) -> Told:
        return Told(event.id, event.type, _line(shown.event(self._ctx, event, row)))

    def _render_progress(self, row: Generation) -> Told:
        data, now = shown.generation(self._ctx, row), formats.time(self._ctx.now())
        return Told(None, PROGRESS, _line({"type": PROGRESS, "created_at": now, "data": data}))


def _tell(listeners: list[Listener], message: Told) -> None:
    for listener in listeners:
        listener.tell(message)


def _line(body: shown.Shown) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
