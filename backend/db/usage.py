"""What was asked for and what it cost, by the day on which it was asked for.

Finished generations are summed in a table of their own, in the transaction that ends them. So a report never reads the
rows of what is finished, which may be millions. Unfinished ones are counted from their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.core import filing
from backend.core.generation import Generation
from backend.db.connection import Tx

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Scope:
    """What is counted: days since 1970 (UTC), from `first` up to but not including `end`; None means no bound."""

    first: int | None = None
    end: int | None = None
    client_id: str | None = None
    campaign_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """What one model did for one group.

    `part` is the id of the group: a day's number when it is by day, empty for generations without a key. Money is in
    millionths of a dollar, `media_ms` in milliseconds.
    """

    part: str | int | None
    name: str | None
    provider: str | None
    model: str | None
    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    canceled: int = 0
    media_ms: int = 0
    bytes: int = 0
    estimated_micros: int = 0
    actual_micros: int = 0
    reserved_micros: int = 0


SUMS = tuple(Sum.__dataclass_fields__)[4:]
_COLUMNS = ", ".join(SUMS)
_ADDED = ", ".join(f"CAST(SUM({name}) AS BIGINT) AS {name}" for name in SUMS)
GROUPS: Mapping[str, str] = {
    "campaign": "campaign_id",
    "client": "client_id",
    "model": "model",
    "provider": "provider",
    "key": "key_id",
    "day": "day",
}
_NAMES = {  # the column of a name, and what has it; an admin's keys have none for a client
    "campaign": ("campaigns.name", "LEFT JOIN campaigns ON campaigns.id = found.part"),
    "client": ("clients.name", "LEFT JOIN clients ON clients.id = found.part"),
    "key": ("api_keys.name", "LEFT JOIN api_keys ON api_keys.id = found.part"),
    "their key": ("api_keys.name", "LEFT JOIN api_keys ON api_keys.id = found.part AND api_keys.admin = 0"),
}


async def add(tx: Tx, row: Generation) -> None:
    """Count a generation that has just ended."""
    await _count(tx, row, deleted=0, times=1)


async def correct(tx: Tx, old: Generation, new: Generation) -> None:
    """Count a finished one anew: its cost is known better than when it ended."""
    # Taken off with all its columns and added with the new ones: each of them may be part of the key.
    await _count(tx, old, deleted=0, times=-1)
    await _count(tx, new, deleted=0, times=1)


async def mark_deleted(tx: Tx, row: Generation) -> None:
    """Count a finished one as deleted: its row is gone, but its cost is not."""
    await _count(tx, row, deleted=0, times=-1)
    await _count(tx, row, deleted=1, times=1)


async def totals(tx: Tx, group: str, scope: Scope, limit: int) -> list[Sum]:
    """Return up to `limit` sums by group and model. For a client, an admin's key has no name."""
    column = GROUPS[group]
    columns, those = _NAMES.get("their key" if group == "key" and scope.client_id else group, ("NULL", ""))
    wheres, params = _wheres(scope)
    rows = await tx.all(
        f"""
        SELECT found.part AS part, {columns} AS name, found.provider AS provider, found.model AS model, {_COLUMNS}
        FROM (
          SELECT part, provider, model, {_ADDED} FROM (
            SELECT {column} AS part, provider, model, 0 AS pending, 0 AS processing,
              CASE WHEN status = 'completed' THEN generations ELSE 0 END AS completed,
              CASE WHEN status = 'failed' THEN generations ELSE 0 END AS failed,
              CASE WHEN status = 'canceled' THEN generations ELSE 0 END AS canceled,
              media_ms, bytes, estimated_micros, actual_micros, 0 AS reserved_micros
            FROM usage_days WHERE {" AND ".join(wheres)}
            UNION ALL
            SELECT {column} AS part, provider, model,
              CASE WHEN status IN ('waiting', 'queued', 'submitting') THEN 1 ELSE 0 END,
              CASE WHEN status IN ('unclear', 'processing', 'storing') THEN 1 ELSE 0 END,
              0, 0, 0, 0, 0, cost, 0, cost
            FROM (
              SELECT client_id, campaign_id || '' AS campaign_id,  -- so that the index of the unfinished is taken
                provider, model, COALESCE(key_id, '') AS key_id, status,
                created_at / 86400000 AS day, COALESCE(cost_estimated_micros, 0) AS cost FROM generations
              WHERE status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing', 'storing')
            ) AS unfinished WHERE {" AND ".join(wheres)}
          ) AS parts GROUP BY part, provider, model ORDER BY part, provider, model LIMIT :limit
        ) AS found {those} ORDER BY found.part, found.provider, found.model
        """,  # noqa: S608
        **params,
        limit=limit,
    )
    return [Sum(row["part"], row["name"], row["provider"], row["model"], *(row[name] for name in SUMS)) for row in rows]


def _wheres(scope: Scope) -> tuple[list[str], dict[str, str | int]]:
    bounds = {
        "day >= :first": ("first", scope.first),
        "day < :end": ("end", scope.end),
        "client_id = :client_id": ("client_id", scope.client_id),
        "campaign_id = :campaign_id": ("campaign_id", scope.campaign_id),
    }
    meant = {where: (name, value) for where, (name, value) in bounds.items() if value is not None}
    return ["1 = 1", *meant], dict(meant.values())


async def _count(tx: Tx, row: Generation, *, deleted: int, times: int) -> None:
    await tx.run(
        """
        INSERT INTO usage_days (client_id, campaign_id, day, kind, provider, model, key_id, status, deleted,
          generations, media_ms, bytes, estimated_micros, actual_micros)
        VALUES (:client_id, :campaign_id, :day, :kind, :provider, :model, :key_id, :status, :deleted,
          :generations, :media_ms, :bytes, :estimated, :actual)
        ON CONFLICT (client_id, campaign_id, day, kind, provider, model, key_id, status, deleted) DO UPDATE SET
          generations = usage_days.generations + excluded.generations,
          media_ms = usage_days.media_ms + excluded.media_ms,
          bytes = usage_days.bytes + excluded.bytes,
          estimated_micros = usage_days.estimated_micros + excluded.estimated_micros,
          actual_micros = usage_days.actual_micros + excluded.actual_micros
        """,
        client_id=row.client_id,
        campaign_id=row.campaign_id,
        day=row.created_at // DAY_MS,
        kind=row.kind,
        provider=row.provider,
        model=row.model,
        key_id=row.key_id or "",
        status=row.status,
        deleted=deleted,
        generations=times,
        media_ms=times * filing.media_ms(row),
        bytes=times * filing.stored_bytes(row),
        estimated=times * row.reserved_micros,
        actual=times * row.spent_micros,
    )
