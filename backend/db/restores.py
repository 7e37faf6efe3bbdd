"""When this database was put back from a backup, so that what it cannot know of is left alone."""

from __future__ import annotations

from backend.db.connection import Tx


async def insert(tx: Tx, taken_at: int, now: int) -> None:
    """It was put back now, as it was at `taken_at`."""
    await tx.run(
        "INSERT INTO restores (restored_at, taken_at) VALUES (:now, :taken_at) ON CONFLICT DO NOTHING",
        now=now,
        taken_at=taken_at,
    )


async def last(tx: Tx) -> int | None:
    """When it was last put back, in milliseconds; None when it never was."""
    row = await tx.one("SELECT MAX(restored_at) AS at FROM restores")
    return row["at"] if row else None
