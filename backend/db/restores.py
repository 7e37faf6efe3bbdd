"""When this database was restored from a backup.

What was made after the backup has no row here: files and predictions without a row may still be somebody's.
"""

from __future__ import annotations

from backend.db.connection import Tx


async def insert(tx: Tx, taken_at: int, now: int) -> None:
    """Note that the database was restored now, as it was at `taken_at`."""
    await tx.run(
        "INSERT INTO restores (restored_at, taken_at) VALUES (:now, :taken_at) ON CONFLICT DO NOTHING",
        now=now,
        taken_at=taken_at,
    )


async def last(tx: Tx) -> int | None:
    """Return when it was last restored, in milliseconds; None when it never was."""
    row = await tx.one("SELECT MAX(restored_at) AS at FROM restores")
    return row["at"] if row else None
