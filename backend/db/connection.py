"""The database: whole transactions on one writer, reads beside it.

A transaction is an async function that awaits nothing but the `Tx` it is given:

    await db.write(lambda tx: generations.move(tx, ...))

It sees no other transaction, and it may be run again: so it changes nothing outside the database, and what it learns is
its result (`tests/rules.py` looks for the former, and every story in `tests` runs each work twice). On SQLite it runs
from BEGIN to COMMIT inside the writer's thread, so no network call can ever sit in a transaction, a
cancelled request cannot leave one open, and writes that wait together share one commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar

from backend.core.errors import SettingsError
from backend.db import troubles
from backend.db.threads import Connections
from backend.disk import faults
from backend.logs import times

T = TypeVar("T")
Row = Any  # a mapping by column name: sqlite3.Row here
Work = Callable[["Tx"], Awaitable[T]]

Ran = tuple[Any, BaseException | None]
Runner = Callable[[sqlite3.Connection, "Tx", Work[Any]], Ran]

READERS = 3
SHARED_COMMIT = 16  # transactions that may share one commit, and rows after which no further one joins them:
SHARED_ROWS = 1_000  # both bound how long the next ones wait
_EVERY = (
    "PRAGMA busy_timeout = 5000",  # first: changing the journal mode may have to wait too
    "PRAGMA temp_store = MEMORY",  # little is sorted; a full /var/tmp would look like a failing disk
)
_SETTINGS = (
    *_EVERY,
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a 202 must survive power loss; measured at 5,000 commits/s
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA journal_size_limit = 67108864",
)


class _Spoiled(Exception):
    """One of several works failed half-way: all are undone and run again, each where it can be undone alone."""


class Tx(Protocol):
    """One transaction's statements. Parameters are `:name`, columns are listed, rows are read by name."""

    async def one(self, sql: str, **params: Any) -> Row | None:
        """The first row, or None."""

    async def all(self, sql: str, **params: Any) -> list[Row]:
        """Every row."""

    async def run(self, sql: str, **params: Any) -> int:
        """Change rows; how many were changed."""


class Db(Protocol):
    """What steps know of the database."""

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        """Run `work` in one transaction; its result when that is durable. Raises Unavailable, OutOfSpace.

        What is `urgent` goes before what is not: somebody outside waits for the answer and may give up. What is
        equally urgent goes in the order in which it came.
        """
        ...

    async def read(self, work: Work[T]) -> T:
        """Run `work` on one consistent view."""
        ...

    async def close(self) -> None:
        """Finish what was begun."""


class _SqliteTx:
    """A Tx whose calls never wait: they run in the thread that owns the connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def one(self, sql: str, **params: Any) -> Row | None:
        # Every row is taken: an UPDATE ... RETURNING that is not read to its end is not finished.
        rows = self._connection.execute(sql, params).fetchall()
        return rows[0] if rows else None

    async def all(self, sql: str, **params: Any) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()

    async def run(self, sql: str, **params: Any) -> int:
        return self._connection.execute(sql, params).rowcount


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
        """Open an existing, migrated file.

        Without `checkpoints` the write-ahead log is left to another process: before SQLite 3.51.3 two that
        write it back could damage the file.
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
            # A task of its own: a caller that is cancelled leaves the transaction to its end.
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
            answers = await self._writer.run(partial(_run_batch, works=[work for _, _, work, _ in batch]))
        except BaseException as error:
            answers = [(None, error)] * len(batch)
        for too_many in batch[len(answers) :]:
            heappush(self._waiting, too_many)
        for (*_, done), (result, failed) in zip(batch, answers, strict=False):
            if done.cancelled():
                continue
            if failed is None:
                done.set_result(result)
            else:
                done.set_exception(failed)

    async def read(self, work: Work[T]) -> T:
        return await self._readers.run(partial(_run_read, work=work))

    async def close(self) -> None:
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        await self._readers.close()
        await self._writer.close()


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:///relative` or `sqlite:////absolute` URL. Raises SettingsError."""
    scheme, _, rest = url.partition("://")
    if scheme != "sqlite" or not rest.startswith("/") or len(rest) < 2:
        raise SettingsError(f"DATABASE_URL: {scheme}: is not supported here; use sqlite:///data/reelhook.db")
    return Path(rest[1:].split("?")[0])


def _connect(path: Path, settings: tuple[str, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    connection.row_factory = sqlite3.Row
    for setting in settings:
        connection.execute(setting).fetchall()
    return connection


def _run_batch(connection: sqlite3.Connection, works: list[Work[Any]]) -> list[Ran]:
    """The first works, at least one, in one commit; one that fails is undone alone, a commit that fails undoes all.

    Savepoints cost more than most works do, so the batch is first tried without them.
    """
    try:
        return _run_together(connection, works, _run_bare)
    except _Spoiled:
        return _run_together(connection, works, _run_saved)


def _run_together(connection: sqlite3.Connection, works: list[Work[Any]], run: Runner) -> list[Ran]:
    tx, answers, began = _SqliteTx(connection), list[Ran](), time.perf_counter()
    with troubles.mapped(connection):
        connection.execute("BEGIN IMMEDIATE")
        before = connection.total_changes
        for work in works:
            answers.append(run(connection, tx, work))
            if connection.total_changes - before >= SHARED_ROWS:
                break
        connection.execute("COMMIT")
        if connection.total_changes != before:
            times.COMMIT.observe(time.perf_counter() - began)
    return answers


def _run_bare(connection: sqlite3.Connection, tx: Tx, work: Work[Any]) -> Ran:
    """A work that fails before it changed anything needs no undoing; else the batch is spoiled."""
    before = connection.total_changes
    try:
        return _drive(work(tx)), None
    except Exception as error:
        if _ends_all(connection, error):
            raise
        if connection.total_changes != before:
            raise _Spoiled from error
        return None, error


def _run_saved(connection: sqlite3.Connection, tx: Tx, work: Work[Any]) -> Ran:
    connection.execute("SAVEPOINT work")
    try:
        result = _drive(work(tx))
    except Exception as error:
        if _ends_all(connection, error):
            raise
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        return None, error
    connection.execute("RELEASE work")
    return result, None


def _ends_all(connection: sqlite3.Connection, error: Exception) -> bool:
    """SQLite itself gave up the whole transaction, as on a full disk, or the file cannot be believed."""
    return not connection.in_transaction or troubles.is_fault(error)


def _run_read(connection: sqlite3.Connection, work: Work[T]) -> T:
    with troubles.mapped(connection):
        connection.execute("BEGIN")
        result = _drive(work(_SqliteTx(connection)))
        connection.execute("COMMIT")
    return result


def _drive(work: Awaitable[T]) -> T:
    """Run a coroutine that never really waits, here and now."""
    coroutine: Coroutine[Any, Any, T] = work  # type: ignore[assignment]
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a transaction waits for nothing but its own statements")
