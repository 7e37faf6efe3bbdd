"""What the service notes about itself: paused providers, living workers, overdue rows, files to remove."""

from __future__ import annotations

from backend.core import filing
from backend.core.generation import LOCAL
from backend.db.connection import Tx


async def pause(tx: Tx, provider: str, until: int, reason: str) -> None:
    """Pause new requests to this provider until then; a longer pause stays. Each worker reads it, as each would pay."""
    await tx.run(
        """
        INSERT INTO providers (name, paused_until, reason) VALUES (:name, :until, :reason)
        ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until, reason = excluded.reason
        WHERE excluded.paused_until > providers.paused_until
        """,
        name=provider,
        until=until,
        reason=reason,
    )


async def paused(tx: Tx, provider: str, now: int) -> bool:
    """Whether new requests to this provider are paused now."""
    row = await tx.one("SELECT name FROM providers WHERE name = :name AND paused_until > :now", name=provider, now=now)
    return row is not None


async def pauses(tx: Tx, now: int) -> dict[str, str]:
    """Return why each paused provider is paused, by its name."""
    rows = await tx.all("SELECT name, reason FROM providers WHERE paused_until > :now", now=now)
    return {row["name"]: row["reason"] for row in rows}


async def beat(tx: Tx, id: str, kind: str, now: int) -> None:
    """Note that this worker is alive."""
    await tx.run(
        """
        INSERT INTO workers (id, kind, started_at, seen_at) VALUES (:id, :kind, :now, :now)
        ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
        """,
        id=id,
        kind=kind,
        now=now,
    )


async def retire(tx: Tx, id: str) -> None:
    """Remove a worker that has stopped."""
    await tx.run("DELETE FROM workers WHERE id = :id", id=id)


async def prune_workers(tx: Tx, before: int) -> int:
    """Remove workers that were not seen since then; return how many."""
    return await tx.run("DELETE FROM workers WHERE seen_at < :before", before=before)


async def last_beat(tx: Tx) -> int | None:
    """Return when a worker was last seen alive, in milliseconds; None when there is none."""
    row = await tx.one("SELECT MAX(seen_at) AS at FROM workers")
    return row["at"] if row else None


async def oldest_queued(tx: Tx) -> int | None:
    """Return when the most overdue row of the queue was due, of those that wait for a provider."""
    # What is made here waits for its turn for as long as films take: that is no trouble.
    row = await tx.one(
        "SELECT MIN(due_at) AS at FROM generations WHERE status = 'queued' AND provider <> :here", here=LOCAL
    )
    return row["at"] if row else None


async def oldest_begun(tx: Tx) -> int | None:
    """Return when the most overdue row beyond the queue was due."""
    row = await tx.one(
        """
        SELECT MIN(due_at) AS at FROM generations
        WHERE status IN ('submitting', 'unclear', 'processing', 'storing')
        """
    )
    return row["at"] if row else None


async def counts(tx: Tx) -> dict[str, int]:
    """Return how many unfinished rows there are, by status."""
    rows = await tx.all(
        """
        SELECT status, COUNT(*) AS n FROM generations
        WHERE status IN ('submitting', 'unclear', 'processing', 'storing') GROUP BY status
        UNION ALL SELECT status, COUNT(*) FROM generations WHERE status = 'queued' GROUP BY status
        UNION ALL SELECT status, COUNT(*) FROM generations WHERE status = 'waiting' GROUP BY status
        """
    )
    return {row["status"]: row["n"] for row in rows}


async def possibly_charged(tx: Tx) -> int:
    """Return how many generations failed though they may have been paid for."""
    row = await tx.one("SELECT COUNT(*) AS n FROM generations WHERE possibly_charged = 1")
    return int(row["n"]) if row else 0


async def set_aside(tx: Tx) -> int:
    """Return how many generations failed because nobody could work on them: only those keep their attempts."""
    row = await tx.one("SELECT COUNT(*) AS n FROM generations WHERE status = 'failed' AND attempts > 0")
    return int(row["n"]) if row else 0


async def throw_away(tx: Tx, file_names: list[str], now: int) -> None:
    """Note files that belong to no row any more.

    They are removed after the commit. Removed before it, a crash would leave rows without their bytes.
    """
    for name in file_names:
        await tx.run(
            "INSERT INTO trash (file_name, created_at) VALUES (:name, :now) ON CONFLICT DO NOTHING",
            name=name,
            now=now,
        )


async def rubbish(tx: Tx, limit: int) -> list[str]:
    """Return names of files to remove."""
    rows = await tx.all("SELECT file_name FROM trash ORDER BY file_name LIMIT :limit", limit=limit)
    return [row["file_name"] for row in rows]


async def forget_rubbish(tx: Tx, file_names: list[str]) -> None:
    """Forget files that are removed."""
    for name in file_names:
        await tx.run("DELETE FROM trash WHERE file_name = :name", name=name)


async def without_row(tx: Tx, file_names: list[str]) -> list[str]:
    """Return those of these files that belong to no row and are not noted for removal.

    A file begins with the id of its row. An unfinished generation may still get the file that a crash left behind.
    """
    found = []
    for name in file_names:
        row = await tx.one(
            """
            SELECT id FROM generations WHERE id = :id AND status NOT IN ('failed', 'canceled', :done)
            UNION ALL SELECT id FROM assets WHERE id = :id
            UNION ALL SELECT file_name FROM trash WHERE file_name = :name
            """,
            id=name[:36],
            name=name,
            done="completed" if filing.is_inline(name) else "",
        )
        if row is None:
            found.append(name)
    return found
