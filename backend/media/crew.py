"""The children of one sort: those that wait for work, and those that are coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from backend.core.errors import MediaUnavailable
from backend.media.child import Child, Sort

SPARE = 2  # children that wait for work, unless it is said how many

log = structlog.get_logger("backend.media.crew")


class Crew:
    """Hands out one child at a time, a warm one if there is any."""

    def __init__(self, sort: Sort = "looks", *, spare: int = SPARE) -> None:
        self.closed = False
        self._sort, self._spare = sort, spare
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._coming: set[asyncio.Task[Child]] = set()  # nobody waits for them
        self._starting: set[asyncio.Task[Child]] = set()

    @asynccontextmanager
    async def member(self) -> AsyncIterator[Child]:
        """A child for the time of the block. Raises MediaUnavailable."""
        child = await self._take()
        self._busy.add(child)
        try:
            yield child
        finally:
            self._busy.discard(child)
            self._give_back(child)

    async def close(self) -> None:
        """End them all. Whoever waits for an answer gets none."""
        self.closed = True
        await asyncio.gather(*self._starting, return_exceptions=True)
        for child in self._busy:
            child.process.kill()
        for child in self._idle:
            child.kill()
        self._idle = []

    async def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.lives():
                return child
            child.kill()
        task = self._coming.pop() if self._coming else self._start()
        try:
            child = await asyncio.shield(task)
        except asyncio.CancelledError:  # it comes all the same: the next one may have it
            self._coming.add(task)
            if task.done():
                self._arrived(task)
            raise
        if self.closed:
            child.kill()
            raise MediaUnavailable("The service is stopping.")
        return child

    def _start(self) -> asyncio.Task[Child]:
        task = asyncio.create_task(Child.start(self._sort))
        self._starting.add(task)
        task.add_done_callback(self._arrived)
        return task

    def _arrived(self, task: asyncio.Task[Child]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("cage_not_started", why=str(error))
        elif task in self._coming and not task.cancelled():
            self._give_back(task.result())
        self._coming.discard(task)

    def _give_back(self, child: Child) -> None:
        if child.lives() and len(self._idle) < self._spare and not self.closed:
            self._idle.append(child)
            return
        child.kill()
        if self._spare and not (self._idle or self._coming or self.closed):
            self._coming.add(self._start())  # so that the next file finds one
