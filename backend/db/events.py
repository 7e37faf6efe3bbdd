"""What happened to generations, written in the transaction that moved them."""

from __future__ import annotations

from backend.db.connection import Tx
from backend.ids import new_id
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
