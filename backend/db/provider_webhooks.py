"""What providers told us by webhook, in the order it came."""

from __future__ import annotations

from backend.core.generation import ProviderWebhook
from backend.core.ids import floor_id
from backend.db import holdings
from backend.db.connection import Row, Tx
from backend.db.holdings import Held

KEPT_CHARACTERS = 64 << 10  # of a body, once it was acted on: a usual one has four thousand


def _read(row: Row) -> ProviderWebhook:
    return ProviderWebhook(
        row["id"],
        row["provider"],
        row["generation_id"],
        row["webhook_id"],
        row["body"].encode(),
        row["received_at"],
        row["attempts"],
    )


async def insert(tx: Tx, delivery: ProviderWebhook) -> bool:
    """Keep it; False when this one came before. It counts as what stays of it."""
    text_bytes = min(len(delivery.body), KEPT_CHARACTERS)
    kept = await tx.run(
        """
        INSERT INTO deliveries (id, provider, generation_id, webhook_id, body, received_at, text_bytes)
        VALUES (:id, :provider, :generation_id, :webhook_id, :body, :received_at, :text_bytes)
        ON CONFLICT (generation_id, webhook_id) DO NOTHING
        """,
        id=delivery.id,
        provider=delivery.provider,
        generation_id=delivery.generation_id,
        webhook_id=delivery.webhook_id,
        body=delivery.body.decode(),
        received_at=delivery.received_at,
        text_bytes=text_bytes,
    )
    if kept:
        await holdings.add_heard(tx, delivery.generation_id, text_bytes)
    return kept == 1


async def unhandled(tx: Tx, limit: int) -> list[ProviderWebhook]:
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
    """What became of it; False when another worker was faster. Nobody needs all of a long one any more."""
    changed = await tx.run(
        """
        UPDATE deliveries SET handled_at = :now, note = :note, body = SUBSTR(body, 1, :most)
        WHERE id = :id AND handled_at IS NULL
        """,
        id=id,
        now=now,
        note=note,
        most=KEPT_CHARACTERS,
    )
    return changed == 1


async def prune(tx: Tx, before: int, limit: int) -> int:
    """Forget a bite of what providers told before this time; how many. What concerns an unfinished generation stays."""
    rows = await tx.all(
        """
        SELECT deliveries.id AS id, client_id, deliveries.text_bytes AS text_bytes
        FROM deliveries CROSS JOIN generations
        WHERE deliveries.id < :oldest AND deliveries.handled_at IS NOT NULL
        AND generations.id = deliveries.generation_id
        AND generations.status IN ('completed', 'failed', 'canceled') ORDER BY deliveries.id LIMIT :limit
        """,
        oldest=floor_id(before),  # ids begin with their time
        limit=limit,
    )
    await holdings.give_back(tx, ((row["client_id"], Held(text_bytes=row["text_bytes"], heard=1)) for row in rows))
    gone = 0
    for row in rows:
        gone += await tx.run("DELETE FROM deliveries WHERE id = :id", id=row["id"])
    return gone


async def held(tx: Tx, generation_id: str) -> Held:
    """What is kept of those about one generation."""
    row = await tx.one(
        """
        SELECT COUNT(*) AS n, CAST(COALESCE(SUM(text_bytes), 0) AS BIGINT) AS text_bytes
        FROM deliveries WHERE generation_id = :id
        """,
        id=generation_id,
    )
    return Held(text_bytes=row["text_bytes"], heard=row["n"]) if row else Held()
