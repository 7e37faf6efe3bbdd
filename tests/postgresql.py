"""PostgreSQL as a database of the service, until it is offered: the same contract, tried with the same works."""

from __future__ import annotations

import asyncio
import os
import random
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import asyncpg
import pytest

from backend.core.errors import Unavailable
from backend.db.connection import Work
from backend.db.versions import schema_file

T = TypeVar("T")

SERVER = {"host": "127.0.0.1", "port": 5432, "user": "postgres", "database": "test"}


class PostgresTx:
    """The statements as they are, with `:name` written as `$n`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def one(self, sql: str, **params: Any) -> Any:
        rows = await self.all(sql, **params)
        return rows[0] if rows else None

    async def all(self, sql: str, **params: Any) -> list[Any]:
        text, values = numbered(sql, params)
        return await self._connection.fetch(text, *values)

    async def run(self, sql: str, **params: Any) -> int:
        text, values = numbered(sql, params)
        return int((await self._connection.execute(text, *values)).rpartition(" ")[2])


def numbered(sql: str, params: dict[str, Any]) -> tuple[str, list[Any]]:
    names = list(dict.fromkeys(re.findall(r"(?<!:):([a-z_0-9]+)", sql)))
    assert set(names) == set(params), "a parameter is given and not used, or used and not given"
    text = re.sub(r"(?<!:):([a-z_0-9]+)", lambda found: f"${names.index(found[1]) + 1}", sql)
    return text, [params[name] for name in names]


@asynccontextmanager
async def postgres() -> AsyncIterator[asyncpg.Connection]:
    """A connection whose tables are in a schema of its own, gone afterwards."""
    try:
        connection = await asyncpg.connect(**SERVER, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(f"no PostgreSQL at {SERVER['host']}:{SERVER['port']}: {error}")
    own = f"reelhook_{uuid.uuid4().hex}"
    try:
        await connection.execute(f"CREATE SCHEMA {own}; SET search_path = {own}")
        yield connection
    finally:
        await connection.execute(f"DROP SCHEMA IF EXISTS {own} CASCADE")
        await connection.close()


Isolation = Literal["one lock", "serializable", "none"]
MOST_RUNS = 100  # of one work, before its caller is told to try again
LOCK = 0x5265656C  # of all that write to this database
AGAIN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


class PostgresDb:
    """What steps know of the database, over a pool.

    A work sees no other in either isolation: with `one lock` writers come one after the other, as on SQLite; when it is
    `serializable` they run side by side, and one that came too late is run again. `none` is what it must not be.
    Measured with 60 batches of webhooks at once: 3 s with one lock. When serializable it took 25 s once and did not end
    in 60 s another time: nearly every work changes the one row of event_clock, so most runs are in vain.
    """

    def __init__(self, pool: asyncpg.Pool, isolation: Isolation) -> None:
        self._pool = pool
        self.isolation = isolation
        self._writing: set[asyncio.Task[Any]] = set()
        self.runs = 0
        self.works = 0

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        """As `Db.write`; nothing waits long enough here for what is urgent to go first."""
        # A task of its own: a caller that is cancelled leaves the transaction to its end.
        writing = asyncio.create_task(self._write(work))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return await asyncio.shield(writing)

    async def _write(self, work: Work[T]) -> T:
        self.works += 1
        for run in range(MOST_RUNS):
            self.runs += 1
            try:
                return await self._once(work)
            except AGAIN:
                await asyncio.sleep(random.uniform(0, 0.002 * min(run + 1, 20)))  # so that they do not meet again
        raise Unavailable("The database is busy.", retry_after=1)

    async def _once(self, work: Work[T]) -> T:
        level = "serializable" if self.isolation == "serializable" else "read_committed"
        async with self._pool.acquire() as connection, connection.transaction(isolation=level):
            if self.isolation == "one lock":
                # A statement of its own, so that the next one sees what was committed while this one waited.
                await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
            return await work(PostgresTx(connection))

    async def read(self, work: Work[T]) -> T:
        """As `Db.read`."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await work(PostgresTx(connection))

    async def close(self) -> None:
        """As `Db.close`."""
        while self._writing:
            await asyncio.wait(self._writing)
        await self._pool.close()


@asynccontextmanager
async def postgres_db(isolation: Isolation = "one lock", size: int = 16) -> AsyncIterator[PostgresDb]:
    """A database with the service's schema, gone afterwards."""
    async with postgres() as first:
        (own,) = await first.fetchrow("SELECT current_schema()")
        await first.execute(schema_file().read_text("utf-8"))
        pool = await asyncpg.create_pool(**SERVER, min_size=1, max_size=size, server_settings={"search_path": own})
        db = PostgresDb(pool, isolation)
        try:
            yield db
        finally:
            await db.close()
