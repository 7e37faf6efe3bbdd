"""Which generations wait for which others."""

from __future__ import annotations

from backend.db.connection import Tx


async def insert(tx: Tx, generation_id: str, source_id: str) -> None:
    """Note that one waits for the other. To note it twice is no error: a video may start and end with one image."""
    await tx.run(
        """
        INSERT INTO dependencies (generation_id, source_id) VALUES (:generation_id, :source_id)
        ON CONFLICT DO NOTHING
        """,
        generation_id=generation_id,
        source_id=source_id,
    )


async def waiting_for(tx: Tx, source_id: str, limit: int) -> list[str]:
    """Return the first of the generations that wait for this one."""
    rows = await tx.all(
        "SELECT generation_id FROM dependencies WHERE source_id = :id ORDER BY generation_id LIMIT :limit",
        id=source_id,
        limit=limit,
    )
    return [row["generation_id"] for row in rows]


async def any_waiting(tx: Tx, source_id: str) -> bool:
    """Whether a generation waits for this one."""
    return bool(await waiting_for(tx, source_id, 1))


async def note_end(tx: Tx, source_id: str) -> None:
    """Note that this one has ended, so that a worker releases those that wait for it."""
    await tx.run("INSERT INTO releases (source_id) VALUES (:id) ON CONFLICT DO NOTHING", id=source_id)


async def ended(tx: Tx, limit: int) -> list[str]:
    """Return generations that have ended and are still waited for, the oldest first."""
    rows = await tx.all("SELECT source_id FROM releases ORDER BY source_id LIMIT :limit", limit=limit)
    return [row["source_id"] for row in rows]


async def forget_end(tx: Tx, source_id: str) -> None:
    """Forget that this one has ended: nobody waits for it any more."""
    await tx.run("DELETE FROM releases WHERE source_id = :id", id=source_id)


async def forget(tx: Tx, generation_id: str) -> None:
    """Let this one wait for nothing any more: it has failed."""
    await tx.run("DELETE FROM dependencies WHERE generation_id = :id", id=generation_id)


async def settle(tx: Tx, generation_id: str, source_id: str) -> bool:
    """Note that this source is there; return whether it was the last one that was missing."""
    await tx.run(
        "DELETE FROM dependencies WHERE generation_id = :id AND source_id = :source_id",
        id=generation_id,
        source_id=source_id,
    )
    return (
        await tx.one("SELECT source_id FROM dependencies WHERE generation_id = :id LIMIT 1", id=generation_id) is None
    )
