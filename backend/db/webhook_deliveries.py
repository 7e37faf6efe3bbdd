"""Webhooks to clients: one row for each event and receiver, written in the transaction of the event."""

from __future__ import annotations

import json
import zlib
from urllib.parse import urlsplit

from backend.core.events import Event
from backend.core.ids import new_id
from backend.core.webhooks import PENDING, Outgoing
from backend.db import holdings, webhook_endpoints
from backend.db.connection import Row, Tx
from backend.db.holdings import Held

COLUMNS = (
    "id, event_id, type, subject, generation_id, client_id, endpoint_id, url, target, replay_of, status, attempts, "
    "event_at, created_at, due_at, lease_owner, finished_at"
)
_NAMES = COLUMNS.split(", ")
GROUPS = 256  # of the origins of one client's own webhook_urls: those of a group share a queue


def read(row: Row) -> Outgoing:
    """Return a row as the object that everybody else knows."""
    fields = {name: row[name] for name in _NAMES}
    return Outgoing(**{**fields, "subject": json.loads(fields["subject"]) if fields["subject"] else None})


async def owe(tx: Tx, event: Event, webhook_url: str | None) -> None:
    """Write a webhook for each endpoint of the client that wants this event, and one for the request's own address."""
    receivers: list[tuple[str | None, str, str]] = [
        (endpoint.id, endpoint.url, endpoint.id)
        for endpoint in await webhook_endpoints.listening(tx, event.client_id)
        if endpoint.wants(event.type)
    ]
    if webhook_url:
        receivers.append((None, webhook_url, f"{event.client_id} {_group(webhook_url)}"))
    for endpoint_id, url, target in receivers:
        await insert(tx, first(event, endpoint_id, url, target))
    if receivers:
        await holdings.add(tx, event.client_id, Held(told=len(receivers)))


def first(event: Event, endpoint_id: str | None, url: str, target: str) -> Outgoing:
    """Return a webhook for this event that nobody has tried yet; it is due at once."""
    return Outgoing(
        id=new_id(event.created_at),
        event_id=event.id,
        type=event.type,
        subject=event.subject,
        generation_id=event.generation_id,
        client_id=event.client_id,
        endpoint_id=endpoint_id,
        url=url,
        target=target,
        replay_of=None,
        status=PENDING,
        attempts=0,
        event_at=event.created_at,
        created_at=event.created_at,
        due_at=event.created_at,
        lease_owner=None,
        finished_at=None,
    )


def _group(url: str) -> int:
    """Return the number of the queue for the origin of a URL.

    A server that answers slowly does so for every path, so one origin is one queue. The numbers are bounded, as each
    queue costs a step of the index at every look: a client could name a new host in each request.
    """
    parts = urlsplit(url)
    return zlib.crc32(f"{parts.scheme}://{parts.netloc}".lower().encode()) % GROUPS


async def insert(tx: Tx, delivery: Outgoing) -> None:
    """Write a new webhook as it is. The caller counts it in holdings."""
    await tx.run(
        f"INSERT INTO webhook_deliveries ({COLUMNS}) VALUES ({', '.join(':' + name for name in _NAMES)})",  # noqa: S608
        **{name: getattr(delivery, name) for name in _NAMES if name != "subject"},
        subject=json.dumps(delivery.subject, ensure_ascii=False) if delivery.subject else None,
    )


async def count_pending(tx: Tx) -> int:
    """Return how many webhooks of all clients are pending."""
    row = await tx.one("SELECT COUNT(*) AS n FROM webhook_deliveries WHERE status = 'pending'")
    return int(row["n"]) if row else 0


async def held(tx: Tx, generation_id: str) -> Held:
    """Return what the webhooks about one generation take."""
    row = await tx.one(
        """
        SELECT COUNT(*) AS n, CAST(COALESCE(SUM(text_bytes), 0) AS BIGINT) AS text_bytes
        FROM webhook_deliveries WHERE generation_id = :id
        """,
        id=generation_id,
    )
    return Held(text_bytes=row["text_bytes"], told=row["n"]) if row else Held()


async def postpone(tx: Tx, claimed: Outgoing, *, url: str, due_at: int) -> bool:
    """Plan the next attempt; return False when this claim has ended or the row is gone. `url`: where it was sent."""
    changed = await tx.run(
        """
        UPDATE webhook_deliveries SET due_at = :due_at, url = :url, lease_owner = NULL
        WHERE id = :id AND status = 'pending' AND lease_owner = :owner AND attempts = :attempts
        """,
        id=claimed.id,
        owner=claimed.lease_owner,
        attempts=claimed.attempts,  # the same worker may have claimed it again, after this attempt took too long
        url=url,
        due_at=due_at,
    )
    return changed == 1


async def finish(tx: Tx, claimed: Outgoing, status: str, *, url: str, now: int) -> bool:
    """Note that it is delivered or has failed for good; return False when this claim has ended or the row is gone."""
    changed = await tx.run(
        """
        UPDATE webhook_deliveries SET status = :status, finished_at = :now, url = :url, lease_owner = NULL
        WHERE id = :id AND status = 'pending' AND lease_owner = :owner AND attempts = :attempts
        """,
        id=claimed.id,
        status=status,
        owner=claimed.lease_owner,
        attempts=claimed.attempts,
        url=url,
        now=now,
    )
    return changed == 1


async def fail_pending(tx: Tx, target: str, now: int, limit: int) -> int:
    """Fail a bite of what is pending for a target where nobody listens any more; return how many.

    What is being sent at this moment comes to its own end.
    """
    return await tx.run(
        """
        UPDATE webhook_deliveries SET status = 'failed', finished_at = :now, lease_owner = NULL
        WHERE id IN (
          SELECT id FROM webhook_deliveries
          WHERE status = 'pending' AND target = :target AND (lease_owner IS NULL OR due_at <= :now)
          ORDER BY due_at LIMIT :limit
        ) AND status = 'pending'
        """,
        target=target,
        now=now,
        limit=limit,
    )
