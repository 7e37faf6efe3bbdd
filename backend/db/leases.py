"""The leases of generations: kept while a worker lives, and given up when it has ended or a clock was set back."""

from __future__ import annotations

from backend.db.connection import Tx

BITE = 200

SUSPECT = 2  # a row that was in hand at so many ends of a process in a row is perhaps what ended it

GAP_MS = 3_000

LONGEST_MS = 60_000


async def extend(tx: Tx, id: str, owner: str, until: int) -> None:
    """Keep the lease of a worker that is alive. One that has lost its lease meanwhile gets none."""
    await tx.run(
        "UPDATE generations SET due_at = :until WHERE id = :id AND lease_owner = :owner",
        id=id,
        owner=owner,
        until=until,
    )


async def release_all(tx: Tx, now: int) -> int:
    """Make every leased row due, and return how many there were. Right only when no other worker can be alive.

    Rows that were in hand at several ends in a row come one after the other, the likeliest first. So a row that kills
    whoever works on it takes no others with it.
    """
    suspects = await tx.all(
        "SELECT id FROM generations WHERE lease_owner IS NOT NULL AND attempts >= :suspect ORDER BY attempts DESC, id",
        suspect=SUSPECT,
    )
    released = await tx.run(
        "UPDATE generations SET lease_owner = NULL, due_at = :now WHERE lease_owner IS NOT NULL", now=now
    )
    gap_ms = min(GAP_MS, LONGEST_MS // max(1, len(suspects)))
    for place, row in enumerate(suspects, start=1):
        await tx.run("UPDATE generations SET due_at = :at WHERE id = :id", id=row["id"], at=now + place * gap_ms)
    return released


async def pull_in(tx: Tx, beyond: int, now: int, limit: int = BITE) -> int:
    """Make rows due now that nobody has and that are due later than `beyond`; return how many there were.

    No schedule plans so far ahead: the clock was put back since they were planned. Up to `limit` queued rows are taken,
    and as many others.
    """
    pulled = 0
    for those in ("status = 'queued'", "status IN ('submitting', 'unclear', 'processing', 'storing')"):
        pulled += await tx.run(
            f"""
            UPDATE generations SET due_at = :now
            WHERE id IN (
              SELECT id FROM generations WHERE {those} AND due_at > :beyond AND lease_owner IS NULL LIMIT :limit
            ) AND due_at > :beyond AND lease_owner IS NULL
            """,  # noqa: S608
            beyond=beyond,
            now=now,
            limit=limit,
        )
    return pulled
