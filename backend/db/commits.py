"""How transactions run in the thread that owns the connection.

Several works share one commit, because a commit waits for the disk and most works do not. A read has one view.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from backend.db import sqlite_errors
from backend.db.connection import Row, T, Tx, Work
from backend.logs import times

Ran = tuple[Any, BaseException | None]

Runner = Callable[[sqlite3.Connection, Tx, Work[Any]], Ran]

SHARED_ROWS = 1_000  # rows after which no further work joins a commit: it bounds how long the next ones wait


class _Spoiled(Exception):
    """One of several works failed after it had changed something: all are undone and run again with savepoints."""


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


def run_batch(connection: sqlite3.Connection, works: list[Work[Any]]) -> list[Ran]:
    """Run the first of the works, at least one, in one commit; return what became of each that was run.

    A work that fails is undone alone. A commit that fails undoes all. A savepoint costs more than most works do, so the
    batch is first tried without.
    """
    try:
        return _run_together(connection, works, _run_bare)
    except _Spoiled:
        return _run_together(connection, works, _run_saved)


def _run_together(connection: sqlite3.Connection, works: list[Work[Any]], run: Runner) -> list[Ran]:
    tx, answers, began = _SqliteTx(connection), list[Ran](), time.perf_counter()
    with sqlite_errors.mapped(connection):
        # IMMEDIATE takes the write lock now and waits for it. Measured with a deferred BEGIN: 2,912 of 4,500
        # transactions were lost to "database is locked".
        connection.execute("BEGIN IMMEDIATE")
        before = connection.total_changes
        for work in works:
            answers.append(run(connection, tx, work))
            if connection.total_changes - before >= SHARED_ROWS:
                break
        connection.execute("COMMIT")
        if connection.total_changes != before:  # without a change the disk was not waited for
            times.COMMIT.observe(time.perf_counter() - began)
    return answers


def _run_bare(connection: sqlite3.Connection, tx: Tx, work: Work[Any]) -> Ran:
    """Run a work without a savepoint. Raises _Spoiled when it fails after it changed something."""
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
    """Whether no work of the batch can go on: SQLite gave up the transaction, or the file cannot be believed."""
    return not connection.in_transaction or sqlite_errors.is_fault(error)


def run_read(connection: sqlite3.Connection, work: Work[T]) -> T:
    with sqlite_errors.mapped(connection):
        connection.execute("BEGIN")
        result = _drive(work(_SqliteTx(connection)))
        connection.execute("COMMIT")
    return result


def _drive(work: Awaitable[T]) -> T:
    """Run a coroutine to its end without an event loop: it never waits, as every call of our Tx returns at once.

    Raises RuntimeError when it does wait.
    """
    coroutine: Coroutine[Any, Any, T] = work  # type: ignore[assignment]
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a transaction waits for nothing but its own statements")
