"""Which generations wait for which."""

from __future__ import annotations

from backend.db.connection import Tx


async def insert(tx: Tx, generation_id: str, source_id: str) -> None:
    """One waits for the other; saying it twice is no error."""
    await tx.run(
        """
        INSERT INTO dependencies (generation_id, source_id) VALUES (:generation_id, :source_id)
        ON CONFLICT DO NOTHING
        """,
        generation_id=generation_id,
        source_id=source_id,
    )


async def waiting_for(tx: Tx, source_id: str) -> list[str]:
    """The generations that wait for this one."""
    rows = await tx.all(
        "SELECT generation_id FROM dependencies WHERE source_id = :id ORDER BY generation_id", id=source_id
    )
    return [row["generation_id"] for row in rows]


async def settle(tx: Tx, generation_id: str, source_id: str) -> bool:
    """This source is there; whether it was the last one that was missing."""
    await tx.run(
        "DELETE FROM dependencies WHERE generation_id = :id AND source_id = :source_id",
        id=generation_id,
        source_id=source_id,
    )
    return (
        await tx.one("SELECT source_id FROM dependencies WHERE generation_id = :id LIMIT 1", id=generation_id) is None
    )
