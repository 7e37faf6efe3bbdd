"""What clients are told by webhook: one row for each event and receiver, written with the event."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from backend.core.generation import Event
from backend.core.ids import floor_id, new_id
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
SCAN = 2_000  # rows looked at for filters no index serves; a page may end early and go on by its cursor
_NOT_DELETED = """NOT EXISTS (
  SELECT 1 FROM webhook_endpoints
  WHERE webhook_endpoints.id = webhook_deliveries.endpoint_id AND webhook_endpoints.deleted_at IS NOT NULL)"""


def read(row: Row) -> Outgoing:
    """A row as the object everybody else knows."""
    fields = {name: row[name] for name in _NAMES}
    return Outgoing(**{**fields, "subject": json.loads(fields["subject"]) if fields["subject"] else None})


async def owe(tx: Tx, event: Event, webhook_url: str | None) -> None:
    """Whom this event is to be told: the client's endpoints that want it, and the generation's own address."""
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
    """A delivery of this event that nobody has tried yet, due at once."""
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
    """A number for the origin: what answers slowly does so for every path. Each queue costs a look for work a step."""
    parts = urlsplit(url)
    return zlib.crc32(f"{parts.scheme}://{parts.netloc}".lower().encode()) % GROUPS


async def insert(tx: Tx, delivery: Outgoing) -> None:
    """A new delivery, as it is; whoever makes it counts it in holdings."""
    await tx.run(
        f"INSERT INTO webhook_deliveries ({COLUMNS}) VALUES ({', '.join(':' + name for name in _NAMES)})",  # noqa: S608
        **{name: getattr(delivery, name) for name in _NAMES if name != "subject"},
        subject=json.dumps(delivery.subject, ensure_ascii=False) if delivery.subject else None,
    )


async def get(tx: Tx, id: str) -> Outgoing | None:
    """One delivery, or None; those of a deleted endpoint are not there."""
    row = await tx.one(
        f"SELECT {COLUMNS} FROM webhook_deliveries WHERE id = :id AND {_NOT_DELETED}",  # noqa: S608
        id=id,
    )
    return read(row) if row else None


@dataclass(frozen=True)
class DeliveryFilter:
    """What to list; None means any."""

    client_id: str | None = None
    endpoint_id: str | None = None
    generation_id: str | None = None
    status: str | None = None
    type: str | None = None


async def page(tx: Tx, wanted: DeliveryFilter, cursor: str | None, limit: int) -> tuple[list[Outgoing], str | None]:
    """Up to `limit` before `cursor`, newest first, and where to go on (None at the end).

    A page of a rare filter can be short and still have a next one.
    """
    wheres, params = _indexed(wanted, cursor)
    end = await tx.one(
        f"SELECT id FROM webhook_deliveries WHERE {' AND '.join(wheres)} ORDER BY id DESC LIMIT 1 OFFSET :scan",  # noqa: S608
        **params,
        scan=SCAN - 1,
    )
    if end:
        params["floor"] = end["id"]
    more = [f"{name} = :{name}" for name in ("status", "type") if getattr(wanted, name)] + [_NOT_DELETED]
    rows = await tx.all(
        f"""
        SELECT {COLUMNS} FROM webhook_deliveries WHERE {" AND ".join(wheres + more)} ORDER BY id DESC LIMIT :limit
        """,  # noqa: S608
        **params,
        **{name: value for name in ("status", "type") if (value := getattr(wanted, name))},
        limit=limit + 1,
    )
    last = end["id"] if end else None
    return [read(row) for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else last


def _indexed(wanted: DeliveryFilter, cursor: str | None) -> tuple[list[str], dict[str, Any]]:
    wheres, params = ["id >= :floor", "id < :before"], {"floor": "", "before": cursor or "~"}
    for name in ("generation_id", "endpoint_id", "client_id"):
        if getattr(wanted, name):
            wheres, params = [*wheres, f"{name} = :{name}"], params | {name: getattr(wanted, name)}
    return wheres, params


async def count_pending(tx: Tx) -> int:
    """How many are still to be told, of all clients."""
    row = await tx.one("SELECT COUNT(*) AS n FROM webhook_deliveries WHERE status = 'pending'")
    return int(row["n"]) if row else 0


async def held(tx: Tx, generation_id: str) -> Held:
    """What is kept of those about one generation."""
    row = await tx.one(
        """
        SELECT COUNT(*) AS n, CAST(COALESCE(SUM(text_bytes), 0) AS BIGINT) AS text_bytes
        FROM webhook_deliveries WHERE generation_id = :id
        """,
        id=generation_id,
    )
    return Held(text_bytes=row["text_bytes"], told=row["n"]) if row else Held()


async def postpone(tx: Tx, claimed: Outgoing, *, url: str, due_at: int) -> bool:
    """It is tried again then; False when this claim of it has ended, or it is gone. `url`: where it was sent."""
    changed = await tx.run(
        """
        UPDATE webhook_deliveries SET due_at = :due_at, url = :url, lease_owner = NULL
        WHERE id = :id AND status = 'pending' AND lease_owner = :owner AND attempts = :attempts
        """,
        id=claimed.id,
        owner=claimed.lease_owner,
        attempts=claimed.attempts,
        url=url,
        due_at=due_at,
    )
    return changed == 1


async def finish(tx: Tx, claimed: Outgoing, status: str, *, url: str, now: int) -> bool:
    """It is delivered, or has failed for good; False when this claim of it has ended, or it is gone."""
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
    """Nobody listens there any more: a bite of what was still to be told has failed; how many.

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


async def prune(tx: Tx, before: int, limit: int) -> int:
    """Forget a bite of what was told before this time, or could not be; how many."""
    return await _forget(
        tx,
        "SELECT id FROM webhook_deliveries WHERE id < :oldest AND status <> 'pending' ORDER BY id LIMIT :limit",
        oldest=floor_id(before),  # ids begin with their time
        limit=limit,
    )


async def forget_of_deleted(tx: Tx, limit: int) -> int:
    """Forget a bite of what deleted endpoints and deleted clients were told, or should have been; how many."""
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
    """Forget a bite of what was told about one generation; how many."""
    return await _forget(
        tx,
        "SELECT id FROM webhook_deliveries WHERE generation_id = :generation_id LIMIT :limit",
        generation_id=generation_id,
        limit=limit,
    )


async def _forget(tx: Tx, those: str, **params: Any) -> int:
    """Remove the deliveries that a query names, with their attempts; how many."""
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
