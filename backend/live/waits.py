"""Waiting for generations to end: one look into the database a second for all who wait, however many they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backend.core.generation import FINAL, Generation
from backend.db import feed
from backend.db.connection import Db

LOOK_S = 1.0  # another process may have committed, and a deletion tells nobody
PAGE = 200  # generations read at a time


class Wait:
    """One wait for some generations.

    `bell` is set when one of them may have ended, and when the tail ends and nobody looks any more.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self.bell = asyncio.Event()
        self._seen: dict[str, Generation | None] = {}

    @property
    def rows(self) -> list[Generation]:
        """The generations as they were last seen, in the order of `ids`, without those that do not exist."""
        return [row for id in self.ids if (row := self._seen.get(id))]

    @property
    def is_over(self) -> bool:
        """Whether all were looked for, and all that exist are final."""
        return all(id in self._seen for id in self.ids) and all(row.status in FINAL for row in self.rows)

    def see(self, id: str, row: Generation | None) -> None:
        """Note how a generation stands now; None means that it does not exist.

        A final one is never replaced by an older look.
        """
        known = self._seen.get(id)
        if row and known and known.status in FINAL:
            return
        self._seen[id] = row
        if row is None or row.status in FINAL:
            self.bell.set()


class Waits:
    """All waits of a process. The tail calls `look` again and again, and `tell` for each generation that ends."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._by_id: dict[str, set[Wait]] = {}
        self._looked_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._by_id)

    @contextmanager
    def of(self, ids: Sequence[str]) -> Iterator[Wait]:
        """Wait for these as long as the block lasts."""
        if not self._by_id:
            self._looked_at = time.monotonic()  # the first one begins with a look of its own
        wait = Wait(ids)
        for id in ids:
            self._by_id.setdefault(id, set()).add(wait)
        try:
            yield wait
        finally:
            for id in set(ids):
                self._by_id[id].discard(wait)
                if not self._by_id[id]:
                    del self._by_id[id]

    async def look_for(self, wait: Wait) -> None:
        """Look for the generations of one wait, as at its beginning and its end. Raises Unavailable."""
        await self._look_at(list(dict.fromkeys(wait.ids)))

    async def look(self) -> None:
        """Look for all generations that are waited for, at most once in LOOK_S. Raises Unavailable."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        ids = list(self._by_id)
        for start in range(0, len(ids), PAGE):
            await self._look_at(ids[start : start + PAGE])

    def tell(self, row: Generation) -> None:
        """Note that this generation has ended."""
        for wait in self._by_id.get(row.id, ()):
            wait.see(row.id, row)

    def wake(self) -> None:
        """Wake every wait, so that it sees that nobody looks any more."""
        for wait in {one for there in self._by_id.values() for one in there}:
            wait.bell.set()

    async def _look_at(self, ids: list[str]) -> None:
        # What is not found was deleted: nothing is told of that, so only a look sees it.
        rows = {row.id: row for row in await self._db.read(lambda tx: feed.named(tx, ids))}
        for id in ids:
            for wait in self._by_id.get(id, ()):
                wait.see(id, rows.get(id))
