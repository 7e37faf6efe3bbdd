"""What happened to generations, written in the transaction that moved them."""

from __future__ import annotations

from backend.db.connection import Tx
from backend.ids import floor_id, new_id
from backend.model import Generation


async def announce(tx: Tx, generation: Generation, now: int) -> None:
    """One event for each status clients see; a finer move within the same status adds none."""
    if generation.shown_status == "pending":
        return
    await tx.run(
        """
        INSERT INTO events (id, generation_id, client_id, campaign_id, type, created_at)
        VALUES (:id, :generation_id, :client_id, :campaign_id, :type, :now)
        ON CONFLICT (generation_id, type) DO NOTHING
        """,
        id=new_id(now),
        generation_id=generation.id,
        client_id=generation.client_id,
        campaign_id=generation.campaign_id,
        type=f"generation.{generation.shown_status}",
        now=now,
    )


async def prune(tx: Tx, before: int, limit: int) -> int:
    """Forget a bite of what happened before this time; how many. What concerns an unfinished generation stays."""
    return await tx.run(
        """
        DELETE FROM events WHERE id IN (
          SELECT events.id FROM events CROSS JOIN generations
          WHERE events.id < :oldest AND generations.id = events.generation_id
          AND generations.status IN ('completed', 'failed', 'canceled') ORDER BY events.id LIMIT :limit)
        """,
        oldest=floor_id(before),  # ids begin with their time
        limit=limit,
    )
