"""Removing webhooks that were sent or never will be: by age, with their endpoint or client, with their generation."""

from __future__ import annotations

from typing import Any

from backend.core.ids import floor_id
from backend.db import holdings
from backend.db.connection import Tx
from backend.db.holdings import Held


async def prune(tx: Tx, before: int, limit: int) -> int:
    """Remove a bite of the webhooks before this time that are not pending; return how many."""
    return await _forget(
        tx,
        "SELECT id FROM webhook_deliveries WHERE id < :oldest AND status <> 'pending' ORDER BY id LIMIT :limit",
        oldest=floor_id(before),  # ids begin with their time
        limit=limit,
    )


async def forget_of_deleted(tx: Tx, limit: int) -> int:
    """Remove a bite of the webhooks of deleted endpoints and clients; return how many."""
    return await _forget(
        tx,
        """
        SELECT webhook_deliveries.id FROM webhook_endpoints CROSS JOIN webhook_deliveries
        WHERE webhook_endpoints.deleted_at IS NOT NULL AND webhook_deliveries.endpoint_id = webhook_endpoints.id
        UNION ALL
        SELECT webhook_deliveries.id FROM clients CROSS JOIN webhook_deliveries
        WHERE clients.deleted_at IS NOT NULL AND webhook_deliveries.client_id = clients.id
        LIMIT :limit
        """,
        limit=limit,
    )


async def forget_of_generation(tx: Tx, generation_id: str, limit: int) -> int:
    """Remove a bite of the webhooks about one generation; return how many."""
    return await _forget(
        tx,
        "SELECT id FROM webhook_deliveries WHERE generation_id = :generation_id LIMIT :limit",
        generation_id=generation_id,
        limit=limit,
    )


async def _forget(tx: Tx, those: str, **params: Any) -> int:
    """Remove the webhooks that a query names, with their attempts; return how many."""
    rows = await tx.all(
        f"SELECT id, client_id, text_bytes FROM webhook_deliveries WHERE id IN ({those})",  # noqa: S608
        **params,
    )
    if not rows:
        return 0
    names = {f"id{number}": row["id"] for number, row in enumerate(rows)}
    await holdings.give_back(tx, ((row["client_id"], Held(text_bytes=row["text_bytes"], told=1)) for row in rows))
    return await tx.run(
        f"DELETE FROM webhook_deliveries WHERE id IN ({', '.join(':' + name for name in names)})",  # noqa: S608
        **names,
    )
