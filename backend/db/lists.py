"""Lists of generations, newest first.

Pages go on by the last id and not by an offset: an offset reads all rows before it, so late pages would cost more and
more, and a row that comes meanwhile would shift every page.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.core.generation import Generation
from backend.core.ids import floor_id
from backend.db.connection import Tx
from backend.db.generation_rows import COLUMNS, read

SCAN = 2_000  # rows looked at for filters no index serves; a page may end early and go on by its cursor
_NOT_DELETED = """NOT EXISTS (
  SELECT 1 FROM campaigns WHERE campaigns.id = generations.campaign_id AND campaigns.deleted_at IS NOT NULL)"""


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
    possibly_charged: bool | None = None


async def page(tx: Tx, filters: Filters, cursor: str | None, limit: int) -> tuple[list[Generation], str | None]:
    """Return up to `limit` rows before `cursor`, and the cursor of the next page (None at the end).

    A page of a rare filter can be short and still have a next one: at most SCAN rows are looked at for a page.
    """
    wheres, params = _indexed(filters, cursor)
    last = await _end_of_scan(tx, wheres, params)
    if last:
        params["floor"] = last
    more, values = _unindexed(filters)
    rows = await tx.all(
        f"SELECT {COLUMNS} FROM generations WHERE {' AND '.join(wheres + more)} ORDER BY id DESC LIMIT :limit",  # noqa: S608
        **params,
        **values,
        limit=limit + 1,
    )
    return [read(row) for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else last


async def page_up(tx: Tx, filters: Filters, after: str | None, limit: int) -> tuple[list[Generation], str | None]:
    """Return as `page` does, but oldest first: up to `limit` rows after the id `after`."""
    wheres, params = _indexed(filters, None)
    if after:
        params["floor"] = max(str(params["floor"]), f"{after}0")  # ids are of one length: the next there can be
    ahead = await tx.one(
        f"SELECT id FROM generations WHERE {' AND '.join(wheres)} ORDER BY id LIMIT 1 OFFSET :scan",  # noqa: S608
        **params,
        scan=SCAN - 1,
    )
    if ahead:
        wheres, params = [*wheres, "id <= :last"], params | {"last": ahead["id"]}
    more, values = _unindexed(filters)
    rows = await tx.all(
        f"SELECT {COLUMNS} FROM generations WHERE {' AND '.join(wheres + more)} ORDER BY id LIMIT :limit",  # noqa: S608
        **params,
        **values,
        limit=limit + 1,
    )
    last = ahead["id"] if ahead else None
    return [read(row) for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else last


async def _end_of_scan(tx: Tx, wheres: list[str], params: dict[str, object]) -> str | None:
    """Return the last id that may be looked at, when there are so many rows; the index alone is read for it."""
    row = await tx.one(
        f"SELECT id FROM generations WHERE {' AND '.join(wheres)} ORDER BY id DESC LIMIT 1 OFFSET :scan",  # noqa: S608
        **params,
        scan=SCAN - 1,
    )
    return row["id"] if row else None


def _indexed(filters: Filters, cursor: str | None) -> tuple[list[str], dict[str, object]]:
    """Return the conditions that an index serves. Of two upper bounds SQLite takes the wrong one, so one is made."""
    wheres = ["id >= :floor"]
    params: dict[str, object] = {"floor": floor_id(filters.created_after or 0)}
    ceiling = floor_id(filters.created_before) if filters.created_before is not None else None
    if before := min(filter(None, (cursor, ceiling)), default=None):
        wheres, params = [*wheres, "id < :before"], params | {"before": before}
    named = "campaign_id" if filters.campaign_id else "client_id"
    if getattr(filters, named):
        wheres, params = [*wheres, f"{named} = :{named}"], params | {named: getattr(filters, named)}
        if filters.kind:
            wheres, params = [*wheres, "kind = :kind"], params | {"kind": filters.kind}
    return wheres, params


def _unindexed(filters: Filters) -> tuple[list[str], dict[str, object]]:
    wheres = [_NOT_DELETED]
    params: dict[str, object] = {}
    if filters.kind and not (filters.campaign_id or filters.client_id):
        wheres, params = [*wheres, "kind = :kind"], {"kind": filters.kind}
    for name in ("provider", "model", "batch_id"):
        if getattr(filters, name):
            wheres, params = [*wheres, f"{name} = :{name}"], params | {name: getattr(filters, name)}
    if filters.statuses:
        wheres.append("status IN (" + ", ".join(f"'{status}'" for status in filters.statuses) + ")")
    if filters.possibly_charged is not None:
        wheres.append(f"possibly_charged = {int(filters.possibly_charged)}")
    if filters.campaign_id and filters.client_id:
        wheres, params = [*wheres, "client_id = :client_id"], params | {"client_id": filters.client_id}
    if filters.q:
        text = filters.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        # The database lowers both: SQLite leaves letters beyond ASCII as they are.
        wheres, params = [*wheres, "LOWER(prompt) LIKE LOWER(:q) ESCAPE '\\'"], params | {"q": f"%{text}%"}
    return wheres, params
