"""One listener to events: what waits for it, and from where it goes on when it fell behind."""

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
    """One message. `line` is its body as one line of JSON, shared by all who are told it.

    A message without an id is not kept: it is only for those who listen now.
    """

    id: str | None
    type: str
    line: bytes


# The topic's next events after an id, and the id up to which there are no more when that is not a full page.
Read = Callable[[Topic, str], Awaitable[tuple[list[Told], str]]]


class Listener:
    """Listens to one topic: first to the events that are there, in pages, then to those that the tail hands over.

    All events up to the id `seen` were taken. `caught_up` says that nothing more was left in the database.
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
        """Return what comes next, the oldest first and at most a page. Raises Unavailable.

        Returns nothing when the time is over, when the listener ended, and when it has just caught up.
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
        """Queue a message. A full queue is dropped whole, and the listener reads from the database again."""
        if len(self._queue) >= MOST_QUEUED:
            self._queue.clear()
            self._behind = True
        self._queue.append(message)
        self._bell.set()

    def end(self) -> None:
        """End the listener: nothing more will come."""
        self.ended = True
        self._bell.set()

    def _take(self) -> list[Told]:
        found = [one for one in self._queue if one.id is None or one.id > self.seen]
        self._queue.clear()
        # Progress has no id, and does not move the place from which to go on.
        self.seen = max([self.seen, *(one.id for one in found if one.id)])
        return found

    async def _catch_up(self) -> list[Told]:
        """Read the next page. Messages that come meanwhile are in that page, or stay in the queue behind it."""
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
