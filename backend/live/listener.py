"""Somebody who listens to events: what waits for them, and where they go on when they fell behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from backend.db.feed import Topic

PAGE = 50
MOST_QUEUED = 100  # messages that wait for one listener; of more it reads what it missed from the database


@dataclass(frozen=True, slots=True)
class Told:
    """One message: `line` is its body as one line of JSON, shared by everybody it is told to.

    Without an id it is not remembered: it concerns only who is there.
    """

    id: str | None
    type: str
    line: bytes


# The topic's next events after an id, and the id up to which there are no more when that is not a full page.
Read = Callable[[Topic, str], Awaitable[tuple[list[Told], str]]]


class Listener:
    """Listens to one topic: first to what is already there, in pages, then to what the tail hands over.

    `seen` is the id up to which everything was taken. `caught_up`: nothing was left in the database.
    """

    def __init__(self, topic: Topic, seen: str, read: Read) -> None:
        self.topic = topic
        self.seen = seen
        self.caught_up = False
        self.ended = False
        self._read = read
        self._queue: deque[Told] = deque()
        self._behind = True
        self._bell = asyncio.Event()

    async def more(self, within_s: float) -> list[Told]:
        """What is next, oldest first and at most a page.

        Nothing when the time is over, when it ended, and when it has just caught up. Raises Unavailable.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.ended:
                    self._bell.clear()
                    if self._behind:
                        return await self._catch_up()
                    if found := self._take():
                        return found
                    await self._bell.wait()
        return []

    def tell(self, message: Told) -> None:
        """Hand it over; one that takes nothing is left behind."""
        if len(self._queue) >= MOST_QUEUED:
            self._queue.clear()
            self._behind = True
        self._queue.append(message)
        self._bell.set()

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self._bell.set()

    def _take(self) -> list[Told]:
        found = [one for one in self._queue if one.id is None or one.id > self.seen]
        self._queue.clear()
        self.seen = max([self.seen, *(one.id for one in found if one.id)])
        return found

    async def _catch_up(self) -> list[Told]:
        """The next page. What is handed over meanwhile comes after it, or is in it."""
        self._behind = False
        try:
            found, until = await self._read(self.topic, self.seen)
        except BaseException:
            self._behind = True
            raise
        if len(found) == PAGE:
            self._behind, until = True, str(found[-1].id)
        self.caught_up = not self._behind
        self.seen = max(self.seen, until)
        self._queue = deque(one for one in self._queue if one.id and one.id > self.seen)  # progress is old by now
        return found
