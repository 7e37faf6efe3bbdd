"""Webhooks that providers sent, kept as they came before anything is done with them.

The provider stops trying a minute after the prediction ended, so a webhook that was answered and then lost never comes
again.
"""

from __future__ import annotations

from backend.core.ids import floor_id
from backend.core.outcomes import ProviderWebhook
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
    """Keep a webhook; return False when it came before. It is counted with the bytes that stay of it in the end."""
    # A provider sends a webhook again when it saw no answer, and one that was seen must have no second effect.
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
    """Return the oldest webhooks that nobody has acted on."""
    rows = await tx.all(
        """
        SELECT id, provider, generation_id, webhook_id, body, received_at, attempts FROM deliveries
        WHERE handled_at IS NULL ORDER BY id LIMIT :limit
        """,
        limit=limit,
    )
    return [_read(row) for row in rows]


async def count_attempts(tx: Tx, last_id: str) -> None:
    """Count an attempt for all that are unhandled, up to this one."""
    await tx.run("UPDATE deliveries SET attempts = attempts + 1 WHERE handled_at IS NULL AND id <= :id", id=last_id)


async def count_attempt(tx: Tx, id: str) -> None:
    """Count an attempt, before the work: else a webhook that kills its worker would be tried for ever."""
    await tx.run("UPDATE deliveries SET attempts = attempts + 1 WHERE id = :id", id=id)


async def mark_handled(tx: Tx, id: str, now: int, note: str) -> bool:
    """Note what became of it, and cut a long body; return False when another worker was faster."""
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
    """Remove a bite of the webhooks before this time, except those of unfinished generations; return how many."""
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
    """Return what the webhooks about one generation take."""
    row = await tx.one(
        """
        SELECT COUNT(*) AS n, CAST(COALESCE(SUM(text_bytes), 0) AS BIGINT) AS text_bytes
        FROM deliveries WHERE generation_id = :id
        """,
        id=generation_id,
    )
    return Held(text_bytes=row["text_bytes"], heard=row["n"]) if row else Held()
