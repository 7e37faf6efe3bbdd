"""Events: what happened, written in the transaction that made it so. Clients are told from here.

An event that is written after the commit can be lost by a crash, and one before it can tell of what never was.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from backend.core.events import Event
from backend.core.generation import Generation
from backend.core.ids import after, floor_id
from backend.db import webhook_deliveries
from backend.db.connection import Tx


async def announce(tx: Tx, generation: Generation, now: int) -> None:
    """Write one event for each status that clients see; a finer move within the same status adds none."""
    if generation.shown_status == "pending":
        return
    type = f"generation.{generation.shown_status}"
    event = Event("", generation.id, generation.client_id, generation.campaign_id, type, None, now)
    if told := await _insert(tx, event):
        await webhook_deliveries.owe(tx, told, generation.webhook_url)


async def warn(tx: Tx, client_id: str, campaign_id: str | None, subject: dict[str, Any], now: int) -> None:
    """Write one event about the budget of a client, or of one campaign of it."""
    if told := await _insert(tx, Event("", None, client_id, campaign_id, "budget.warning", subject, now)):
        await webhook_deliveries.owe(tx, told, None)


async def _insert(tx: Tx, event: Event) -> Event | None:
    """Write the event, and return it with its id; None when this generation has one of this type."""
    # Whoever writes an event holds the row of the clock until its commit, so ids grow in the order of commits. Without
    # it a transaction could take a small id and commit late: a stream that went on after the last id it saw would never
    # tell that event.
    clock = await tx.one("UPDATE event_clock SET one = 1 WHERE one = 1 RETURNING last_id")
    event = replace(event, id=after(clock["last_id"] if clock else "", event.created_at))
    inserted = await tx.run(
        """
        INSERT INTO events (id, generation_id, client_id, campaign_id, type, subject, created_at)
        VALUES (:id, :generation_id, :client_id, :campaign_id, :type, :subject, :created_at)
        ON CONFLICT (generation_id, type) DO NOTHING
        """,
        id=event.id,
        generation_id=event.generation_id,
        client_id=event.client_id,
        campaign_id=event.campaign_id,
        type=event.type,
        subject=json.dumps(event.subject, ensure_ascii=False) if event.subject else None,
        created_at=event.created_at,
    )
    if not inserted:
        return None
    await tx.run("UPDATE event_clock SET last_id = :id WHERE one = 1", id=event.id)
    return event


async def last_id(tx: Tx) -> str:
    """Return the id of the last event there was; empty when there was none."""
    row = await tx.one("SELECT last_id FROM event_clock WHERE one = 1")
    return str(row["last_id"]) if row else ""


async def prune(tx: Tx, before: int, limit: int) -> int:
    """Remove a bite of the events before this time, except those of unfinished generations; return how many."""
    return await tx.run(
        """
        DELETE FROM events WHERE id IN (
          SELECT events.id FROM events LEFT JOIN generations ON generations.id = events.generation_id
          WHERE events.id < :oldest
          AND (events.generation_id IS NULL OR generations.status IN ('completed', 'failed', 'canceled'))
          ORDER BY events.id LIMIT :limit)
        """,
        oldest=floor_id(before),  # ids begin with their time
        limit=limit,
    )


async def forget_of_deleted(tx: Tx, limit: int) -> int:
    """Remove a bite of the events of deleted campaigns and clients that are empty by now; return how many."""
    return await tx.run(
        """
        DELETE FROM events WHERE id IN (
          SELECT events.id FROM campaigns CROSS JOIN events
          WHERE campaigns.deleted_at IS NOT NULL AND events.campaign_id = campaigns.id
          AND NOT EXISTS (SELECT 1 FROM generations WHERE generations.campaign_id = campaigns.id)
          UNION ALL
          SELECT events.id FROM clients CROSS JOIN events
          WHERE clients.deleted_at IS NOT NULL AND events.client_id = clients.id
          AND NOT EXISTS (SELECT 1 FROM campaigns WHERE campaigns.client_id = clients.id)
          LIMIT :limit)
        """,
        limit=limit,
    )
