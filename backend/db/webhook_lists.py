"""Lists of the webhooks that clients are sent, and one of them by its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.core.webhooks import Outgoing
from backend.db.connection import Tx
from backend.db.webhook_deliveries import COLUMNS, read

SCAN = 2_000  # rows looked at for filters no index serves; a page may end early and go on by its cursor

_NOT_DELETED = """NOT EXISTS (
  SELECT 1 FROM webhook_endpoints
  WHERE webhook_endpoints.id = webhook_deliveries.endpoint_id AND webhook_endpoints.deleted_at IS NOT NULL)"""


async def get(tx: Tx, id: str) -> Outgoing | None:
    """Return one webhook, or None, also for one of a deleted endpoint."""
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
    """Return up to `limit` webhooks before `cursor`, newest first, and the cursor of the next page (None at the end).

    A page of a rare filter can be short and still have a next one: at most SCAN rows are looked at.
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
