"""The database: whole transactions on one writer, reads beside it.

A transaction is an async function that awaits nothing but the `Tx` it is given:

    await db.write(lambda tx: generations.move(tx, ...))

It sees no other transaction, and it may be run again: so it changes nothing outside the database, and what it learns is
its result (`tests/rules.py` looks for the former, and every story in `tests` runs each work twice). On SQLite it runs
from BEGIN to COMMIT inside the writer's thread, so no network call can ever sit in a transaction, a
cancelled request cannot leave one open, and writes that wait together share one commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = Any  # a mapping by column name: sqlite3.Row here
Work = Callable[["Tx"], Awaitable[T]]


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
