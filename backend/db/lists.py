"""Lists of generations: newest first, by key and not by offset, at the same cost however many rows there are."""

from __future__ import annotations

from dataclasses import dataclass

from backend.db.connection import Tx
from backend.db.generations import COLUMNS, read
from backend.ids import floor_id
from backend.model import Generation

SCAN = 2_000  # rows looked at for filters no index serves; a page may end early and go on by its cursor
INDEXED = ("client_id", "campaign_id", "kind")


@dataclass(frozen=True)
class Filters:
    """What to list; None means any. Times are milliseconds; `statuses` are rows' own."""

    kind: str | None = None
    statuses: tuple[str, ...] = ()
    client_id: str | None = None
    campaign_id: str | None = None
    provider: str | None = None
    model: str | None = None
    batch_id: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    q: str | None = None


async def page(tx: Tx, filters: Filters, cursor: str | None, limit: int) -> tuple[list[Generation], str | None]:
    """Up to `limit` rows before `cursor`, and where to go on (None at the end).

    A page of a rare filter can be short and still have a next one.
    """
    wheres, params = _indexed(filters, cursor)
    inner = f"SELECT {COLUMNS} FROM generations WHERE {' AND '.join(wheres)} ORDER BY id DESC LIMIT :scan"  # noqa: S608
    outer, more = _unindexed(filters)
    params |= more
    if not outer:
        rows = await tx.all(inner, **params, scan=limit + 1)
        return [read(row) for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else None
    rows = await tx.all(
        f"SELECT {COLUMNS} FROM ({inner}) AS newest WHERE {' AND '.join(outer)} ORDER BY id DESC LIMIT :limit",  # noqa: S608
        **params,
        scan=SCAN,
        limit=limit + 1,
    )
    if len(rows) > limit:
        return [read(row) for row in rows[:limit]], rows[limit - 1]["id"]
    return [read(row) for row in rows], await _end_of_scan(tx, wheres, params)


async def _end_of_scan(tx: Tx, wheres: list[str], params: dict[str, object]) -> str | None:
    """The last id looked at, if rows lie beyond it."""
    needed = {name: value for name, value in params.items() if any(f":{name}" in where for where in wheres)}
    row = await tx.one(
        f"SELECT id FROM generations WHERE {' AND '.join(wheres)} ORDER BY id DESC LIMIT 1 OFFSET :scan",  # noqa: S608
        **needed,
        scan=SCAN - 1,
    )
    return row["id"] if row else None


def _indexed(filters: Filters, cursor: str | None) -> tuple[list[str], dict[str, object]]:
    wheres = ["id > :floor"]
    params: dict[str, object] = {"floor": floor_id(filters.created_after or 0)}
    if filters.created_before is not None:
        wheres, params = [*wheres, "id < :ceiling"], params | {"ceiling": floor_id(filters.created_before)}
    if cursor:
        wheres, params = [*wheres, "id < :cursor"], params | {"cursor": cursor}
    named = "campaign_id" if filters.campaign_id else "client_id"
    if getattr(filters, named):
        wheres, params = [*wheres, f"{named} = :{named}"], params | {named: getattr(filters, named)}
        if filters.kind:
            wheres, params = [*wheres, "kind = :kind"], params | {"kind": filters.kind}
    return wheres, params


def _unindexed(filters: Filters) -> tuple[list[str], dict[str, object]]:
    wheres: list[str] = []
    params: dict[str, object] = {}
    if filters.kind and not (filters.campaign_id or filters.client_id):
        wheres, params = ["kind = :kind"], {"kind": filters.kind}
    for name in ("provider", "model", "batch_id"):
        if getattr(filters, name):
            wheres, params = [*wheres, f"{name} = :{name}"], params | {name: getattr(filters, name)}
    if filters.statuses:
        wheres.append("status IN (" + ", ".join(f"'{status}'" for status in filters.statuses) + ")")
    if filters.campaign_id and filters.client_id:
        wheres, params = [*wheres, "client_id = :client_id"], params | {"client_id": filters.client_id}
    if filters.q:
        text = filters.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").lower()
        wheres, params = [*wheres, "LOWER(prompt) LIKE :q ESCAPE '\\'"], params | {"q": f"%{text}%"}
    return wheres, params
