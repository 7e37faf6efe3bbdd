"""What a transaction is, whatever the engine: the only part of the database that steps depend on.

A transaction is an async function that awaits nothing but the `Tx` it is given:

    await db.write(lambda tx: generations.move(tx, ...))

It sees no other transaction, and the engine may run it again. So it changes nothing outside the database, and it hands
out what it learned as its result. `tests/rules.py` looks for works that change something outside, and every story in
`tests` runs each work twice. On SQLite a work runs from BEGIN to COMMIT inside the writer's thread: no network call can
sit in a transaction, a cancelled request cannot leave one open, and writes that wait together share one commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = Any  # a mapping by column name: sqlite3.Row here
Work = Callable[["Tx"], Awaitable[T]]


class Tx(Protocol):
    """The statements of one transaction.

    Parameters are written as `:name`, since SQLite and PostgreSQL both can be given those. Columns are listed, and rows
    are read by name.
    """

    async def one(self, sql: str, **params: Any) -> Row | None:
        """Return the first row, or None."""

    async def all(self, sql: str, **params: Any) -> list[Row]:
        """Return every row."""

    async def run(self, sql: str, **params: Any) -> int:
        """Change rows, and return how many were changed."""


class Db(Protocol):
    """What steps know of the database."""

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        """Run `work` in one transaction, and return its result once it is durable. Raises Unavailable, OutOfSpace.

        `urgent` works go first: somebody outside waits for the answer and may give up. Works that are equally urgent
        go in the order in which they came.
        """
        ...

    async def read(self, work: Work[T]) -> T:
        """Run `work` on one consistent view, and return its result. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Finish the works that wait, then close every connection."""
