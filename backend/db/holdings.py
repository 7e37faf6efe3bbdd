"""What is kept for each client, counted in the transaction that changes it: so a question is one row.

A client may fill a disk and a database without paying anything. Files count by their bytes; each row counts
ROW_BYTES for itself and its indexes, and the texts in it that a client, a receiver or a provider chose the length of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache

from backend.db.connection import Tx

ROW_BYTES = 1_000
OF_CLIENT = "client:"  # how the scope of a client's Idempotency-Keys begins


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept, or how much more of it: bytes of files and of texts, and rows by their sort.

    `told` are webhooks to the client, `heard` those of providers about its generations, `answers` those kept for an
    Idempotency-Key.
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
        """The rows by their sort."""
        return {name: getattr(self, name) for name in _ROWS}

    @property
    def bytes(self) -> int:
        """All of it together."""
        return self.file_bytes + self.text_bytes + ROW_BYTES * sum(self.rows.values())

    def __sub__(self, other: Held) -> Held:
        return Held(*(getattr(self, name) - getattr(other, name) for name in _NAMES))


_NAMES = tuple(field.name for field in fields(Held))
_ROWS = _NAMES[2:]
_COLUMNS = ", ".join(_NAMES)


async def get(tx: Tx, client_id: str) -> Held:
    """What is kept for this client."""
    row = await tx.one(f"SELECT {_COLUMNS} FROM holdings WHERE client_id = :id", id=client_id)  # noqa: S608
    return Held(*(row[name] for name in _NAMES)) if row else Held()


async def add(tx: Tx, client_id: str, more: Held) -> None:
    """So much more is kept from now on; less, where it is negative."""
    values = {name: value for name in _NAMES if (value := getattr(more, name))}
    if not values:
        return
    adding = _adding(tuple(values))
    if not await tx.run(adding, client_id=client_id, **values) and not await _begin(tx, client_id, more):
        await tx.run(adding, client_id=client_id, **values)


@cache
def _adding(names: tuple[str, ...]) -> str:
    """The statement that adds to these columns: every accepted request waits for one."""
    changes = ", ".join(f"{name} = {name} + :{name}" for name in names)
    return f"UPDATE holdings SET {changes} WHERE client_id = :client_id"  # noqa: S608


async def _begin(tx: Tx, client_id: str, first: Held) -> int:
    """The first that is kept for a client; 0 when another transaction was faster."""
    return await tx.run(
        f"""
        INSERT INTO holdings (client_id, {_COLUMNS}) VALUES (:client_id, {", ".join(":" + name for name in _NAMES)})
        ON CONFLICT (client_id) DO NOTHING
        """,  # noqa: S608
        client_id=client_id,
        **{name: getattr(first, name) for name in _NAMES},
    )


async def give_back(tx: Tx, gone: Iterable[tuple[str, Held]]) -> None:
    """These rows are gone, each with its client: one change for each client, in one order for everybody."""
    changes: dict[str, Held] = {}
    for client_id, held in gone:
        changes[client_id] = changes.get(client_id, Held()) - held
    for client_id in sorted(changes):
        await add(tx, client_id, changes[client_id])


async def add_heard(tx: Tx, generation_id: str, text_bytes: int) -> None:
    """One webhook of a provider more is kept about this generation."""
    await tx.run(
        """
        UPDATE holdings SET heard = heard + 1, text_bytes = text_bytes + :text_bytes
        WHERE client_id = (SELECT client_id FROM generations WHERE id = :id)
        """,
        id=generation_id,
        text_bytes=text_bytes,
    )


async def forget(tx: Tx, client_id: str) -> None:
    """The client is gone, and nothing is kept for it any more."""
    await tx.run("DELETE FROM holdings WHERE client_id = :id", id=client_id)


def size(*texts: str | None) -> int:
    """How many bytes these texts take."""
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts if text)
