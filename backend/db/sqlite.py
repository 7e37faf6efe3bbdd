"""The SQLite engine: one writing connection and a few reading ones on one file."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any

from backend.core.errors import SettingsError
from backend.db.commits import run_batch, run_read
from backend.db.connection import T, Work
from backend.db.threads import Connections
from backend.disk import faults

READERS = 3  # a report may read for seconds: the others still serve everybody else

SHARED_COMMIT = 16  # transactions that may share one commit: it bounds how long the next ones wait

_EVERY = (
    "PRAGMA busy_timeout = 5000",  # first: changing the journal mode may have to wait too
    "PRAGMA temp_store = MEMORY",  # little is sorted; a full /var/tmp would look like a failing disk
)

_SETTINGS = (
    *_EVERY,
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a 202 must survive power loss; measured at 5,000 commits/s
    "PRAGMA foreign_keys = ON",  # off by default, for each connection anew
    "PRAGMA trusted_schema = OFF",  # a restored file is somebody else's: its schema runs no function
    "PRAGMA journal_size_limit = 67108864",  # 64 MB: a long read lets the log grow, and it would stay so large
)

Waiting = tuple[bool, int, Work[Any], asyncio.Future[Any]]  # sorted by the first two: not urgent, number


class SqliteDb:
    """One writing connection and a few reading ones on one file."""

    def __init__(self, writer: Connections, readers: Connections) -> None:
        self._writer = writer
        self._readers = readers
        self._numbers = count()
        self._waiting: list[Waiting] = []  # a heap
        self._flushing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, *, checkpoints: bool = True) -> SqliteDb:
        """Open a file that exists and is migrated.

        Without `checkpoints` this process leaves the write-ahead log to another one. Before SQLite 3.51.3, two
        processes that write the log back at the same time can damage the file.
        """
        settings = _SETTINGS if checkpoints else (*_SETTINGS, "PRAGMA wal_autocheckpoint = 0")
        writer = await Connections.open(partial(_connect, path, settings), 1)
        try:
            readers = await Connections.open(partial(_connect, path, (*_EVERY, "PRAGMA query_only = ON")), READERS)
        except BaseException:
            await writer.close()
            raise
        return cls(writer, readers)

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (not urgent, next(self._numbers), work, done))
        if self._flushing is None:
            # A task of its own: when the caller is cancelled, the transaction still comes to its end. Awaited in the
            # caller, a cancelled BEGIN would still be executed, and nobody would be left to end the transaction.
            self._flushing = asyncio.create_task(self._flush())
        return await done

    async def _flush(self) -> None:
        try:
            while self._waiting:
                share = min(len(self._waiting), SHARED_COMMIT)
                await self._commit([heappop(self._waiting) for _ in range(share)])
        finally:
            self._flushing = None

    async def _commit(self, batch: list[Waiting]) -> None:
        try:
            faults.refuse()
            answers = await self._writer.run(partial(run_batch, works=[work for _, _, work, _ in batch]))
        except BaseException as error:  # each who waits must be told, or it waits for ever
            answers = [(None, error)] * len(batch)
        for too_many in batch[len(answers) :]:
            heappush(self._waiting, too_many)
        for (*_, done), (result, failed) in zip(batch, answers, strict=False):
            if done.cancelled():  # what the work changed stays: its request was cancelled after it was handed over
                continue
            if failed is None:
                done.set_result(result)
            else:
                done.set_exception(failed)

    async def read(self, work: Work[T]) -> T:
        return await self._readers.run(partial(run_read, work=work))

    async def close(self) -> None:
        while self._flushing is not None:  # a work that came meanwhile has begun another one
            await asyncio.wait([self._flushing])
        await self._readers.close()
        await self._writer.close()


def sqlite_path(url: str) -> Path:
    """Return the file that a `sqlite:///relative` or `sqlite:////absolute` URL names. Raises SettingsError."""
    scheme, _, rest = url.partition("://")
    if scheme != "sqlite" or not rest.startswith("/") or len(rest) < 2:
        raise SettingsError(f"DATABASE_URL: {scheme}: is not supported here; use sqlite:///data/reelhook.db")
    return Path(rest[1:].split("?")[0])


def _connect(path: Path, settings: tuple[str, ...]) -> sqlite3.Connection:
    # No isolation level: Python would begin transactions by itself, as deferred ones. A deferred transaction that goes
    # from reading to writing fails at once after somebody else's commit, whatever busy_timeout says.
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    connection.row_factory = sqlite3.Row
    for setting in settings:
        connection.execute(setting).fetchall()
    return connection
