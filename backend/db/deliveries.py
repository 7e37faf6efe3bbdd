"""What providers told us by webhook, in the order it came."""

from __future__ import annotations

from backend.db.connection import Row, Tx
from backend.ids import floor_id
from backend.model import Delivery


def _read(row: Row) -> Delivery:
    return Delivery(
        row["id"],
        row["provider"],
        row["generation_id"],
        row["webhook_id"],
        row["body"].encode(),
        row["received_at"],
        row["attempts"],
    )


async def insert(tx: Tx, delivery: Delivery) -> bool:
    """Keep it; False when this one came before."""
    kept = await tx.run(
        """
        INSERT INTO deliveries (id, provider, generation_id, webhook_id, body, received_at)
        VALUES (:id, :provider, :generation_id, :webhook_id, :body, :received_at)
        ON CONFLICT (generation_id, webhook_id) DO NOTHING
        """,
        id=delivery.id,
        provider=delivery.provider,
        generation_id=delivery.generation_id,
        webhook_id=delivery.webhook_id,
        body=delivery.body.decode(),
        received_at=delivery.received_at,
    )
    return kept == 1


async def unhandled(tx: Tx, limit: int) -> list[Delivery]:
    """The oldest that nobody has acted on."""
    rows = await tx.all(
        """
        SELECT id, provider, generation_id, webhook_id, body, received_at, attempts FROM deliveries
        WHERE handled_at IS NULL ORDER BY id LIMIT :limit
        """,
        limit=limit,
    )
    return [_read(row) for row in rows]


async def count_attempts(tx: Tx, last_id: str) -> None:
    """The same for all that are unhandled, up to this one."""
    await tx.run("UPDATE deliveries SET attempts = attempts + 1 WHERE handled_at IS NULL AND id <= :id", id=last_id)


async def count_attempt(tx: Tx, id: str) -> None:
    """Counted before the work, so that one nobody survives is noticed."""
    await tx.run("UPDATE deliveries SET attempts = attempts + 1 WHERE id = :id", id=id)


async def mark_handled(tx: Tx, id: str, now: int, note: str) -> bool:
    """What became of it; False when another worker was faster."""
    changed = await tx.run(
        "UPDATE deliveries SET handled_at = :now, note = :note WHERE id = :id AND handled_at IS NULL",
        id=id,
        now=now,
        note=note,
    )
    return changed == 1


async def prune(tx: Tx, before: int, limit: int) -> int:
    """Forget a bite of what providers told before this time; how many. What concerns an unfinished generation stays."""
    return await tx.run(
        """
        DELETE FROM deliveries WHERE id IN (
          SELECT deliveries.id FROM deliveries CROSS JOIN generations
          WHERE deliveries.id < :oldest AND deliveries.handled_at IS NOT NULL
          AND generations.id = deliveries.generation_id
          AND generations.status IN ('completed', 'failed', 'canceled') ORDER BY deliveries.id LIMIT :limit)
        """,
        oldest=floor_id(before),  # ids begin with their time
        limit=limit,
    )
