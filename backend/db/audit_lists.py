"""Lists of the audit log, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.core.ids import floor_id
from backend.db.audit import COLUMNS, Entry, read
from backend.db.connection import Tx

SCAN = 2_000  # rows that one page looks at: what is rare is found over several pages

_INDEXED = ("object_id", "key_id", "client_id", "action")  # the most telling first


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What to list; None means any. Times are milliseconds."""

    action: str | None = None
    client_id: str | None = None
    key_id: str | None = None
    object_id: str | None = None
    created_after: int | None = None
    created_before: int | None = None


async def page(tx: Tx, wanted: AuditFilter, cursor: str | None, limit: int) -> tuple[list[Entry], str | None]:
    """Return up to `limit` entries before `cursor`, and the cursor of the next page (None at the end).

    A page with several filters can be short and still have a next one: at most SCAN rows are looked at.
    """
    given = {name: value for name in _INDEXED if (value := getattr(wanted, name)) is not None}
    first = next(iter(given), None)
    bounds, params = _bounds(wanted, cursor)
    wheres = bounds + ([f"{first} = :{first}"] if first else [])
    more = [f"{name} = :{name}" for name in given if name != first]
    if more:
        end = await tx.one(
            f"SELECT id FROM audit WHERE {' AND '.join(wheres)} ORDER BY id DESC LIMIT 1 OFFSET :scan",  # noqa: S608
            **params,
            **({first: given[first]} if first else {}),
            scan=SCAN - 1,
        )
        params["floor"] = end["id"] if end else params["floor"]
    rows = await tx.all(
        f"SELECT {COLUMNS} FROM audit WHERE {' AND '.join(wheres + more)} ORDER BY id DESC LIMIT :limit",  # noqa: S608
        **params,
        **given,
        limit=limit + 1,
    )
    last = end["id"] if more and end else None
    return [read(row) for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else last


def _bounds(wanted: AuditFilter, cursor: str | None) -> tuple[list[str], dict[str, Any]]:
    """Return the bounds of the ids, which begin with their time."""
    floor = floor_id(wanted.created_after or 0)
    before = floor_id(wanted.created_before) if wanted.created_before is not None else "~"
    return ["id >= :floor", "id < :before"], {"floor": floor, "before": min(before, cursor or "~")}
