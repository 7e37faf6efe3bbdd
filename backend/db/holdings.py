"""What is kept for each client, counted in the transaction that changes it, so that one row answers how much it is.

A client may fill a disk and a database without paying anything. Files count by their bytes; each row counts
ROW_BYTES for itself and its indexes, and the texts in it that a client, a receiver or a provider chose the length of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache

from backend.db.connection import Tx

ROW_BYTES = 1_000  # roughly a row with its indexes: else rows without text would count as nothing
OF_CLIENT = "client:"  # how the scope of a client's Idempotency-Keys begins


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept, or how much more of it: bytes of files, bytes of texts, and numbers of rows.

    `told` are webhooks to the client, `heard` are webhooks of providers about its generations, and `answers` are those
    kept for an Idempotency-Key.
    """

    file_bytes: int = 0
    text_bytes: int = 0
    generations: int = 0
    assets: int = 0
    campaigns: int = 0
    endpoints: int = 0
    keys: int = 0
    told: int = 0
    heard: int = 0
    answers: int = 0

    @property
    def rows(self) -> dict[str, int]:
        """The numbers of rows by their kind."""
        return {name: getattr(self, name) for name in _ROWS}

    @property
    def bytes(self) -> int:
        """The bytes of all of it together."""
        return self.file_bytes + self.text_bytes + ROW_BYTES * sum(self.rows.values())

    def __sub__(self, other: Held) -> Held:
        return Held(*(getattr(self, name) - getattr(other, name) for name in _NAMES))


_NAMES = tuple(field.name for field in fields(Held))
_ROWS = _NAMES[2:]
_COLUMNS = ", ".join(_NAMES)


async def get(tx: Tx, client_id: str) -> Held:
    """Return what is kept for this client."""
    row = await tx.one(f"SELECT {_COLUMNS} FROM holdings WHERE client_id = :id", id=client_id)  # noqa: S608
    return Held(*(row[name] for name in _NAMES)) if row else Held()


async def add(tx: Tx, client_id: str, more: Held) -> None:
    """Count so much more as kept for the client; less, where it is negative."""
    values = {name: value for name in _NAMES if (value := getattr(more, name))}
    if not values:
        return
    # The UPDATE comes first, as nearly every client has its row. The second one is for a row that another transaction
    # began between the two statements.
    adding = _adding(tuple(values))
    if not await tx.run(adding, client_id=client_id, **values) and not await _begin(tx, client_id, more):
        await tx.run(adding, client_id=client_id, **values)


@cache
def _adding(names: tuple[str, ...]) -> str:
    """The statement that adds to these columns: every accepted request waits for one."""
    changes = ", ".join(f"{name} = {name} + :{name}" for name in names)
    return f"UPDATE holdings SET {changes} WHERE client_id = :client_id"  # noqa: S608


async def _begin(tx: Tx, client_id: str, first: Held) -> int:
    """Begin with the first that is kept for a client; return 0 when another transaction was faster."""
    return await tx.run(
        f"""
        INSERT INTO holdings (client_id, {_COLUMNS}) VALUES (:client_id, {", ".join(":" + name for name in _NAMES)})
        ON CONFLICT (client_id) DO NOTHING
        """,  # noqa: S608
        client_id=client_id,
        **{name: getattr(first, name) for name in _NAMES},
    )


async def give_back(tx: Tx, gone: Iterable[tuple[str, Held]]) -> None:
    """Count these rows as gone, each given with its client.

    There is one change for each client, in the order of ids: two transactions on PostgreSQL that take the same clients
    in different orders would deadlock.
    """
    changes: dict[str, Held] = {}
    for client_id, held in gone:
        changes[client_id] = changes.get(client_id, Held()) - held
    for client_id in sorted(changes):
        await add(tx, client_id, changes[client_id])


async def add_heard(tx: Tx, generation_id: str, text_bytes: int) -> None:
    """Count one more webhook of a provider about this generation."""
    await tx.run(
        """
        UPDATE holdings SET heard = heard + 1, text_bytes = text_bytes + :text_bytes
        WHERE client_id = (SELECT client_id FROM generations WHERE id = :id)
        """,
        id=generation_id,
        text_bytes=text_bytes,
    )


async def forget(tx: Tx, client_id: str) -> None:
    """Remove the count of a client that is gone."""
    await tx.run("DELETE FROM holdings WHERE client_id = :id", id=client_id)


def size(*texts: str | None) -> int:
    """Return how many bytes these texts take in UTF-8."""
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts if text)
