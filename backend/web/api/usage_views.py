"""What was made and what it cost, as JSON and as a table."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import Field

from backend.core.formats import dollars
from backend.db.usage import Sum
from backend.live.shown import Shown
from backend.live.views import CostView, View
from backend.manage.usage import Asked, KeptByClient, Report

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")  # what a spreadsheet may take for more than text
_COUNTS = ("pending", "processing", "completed", "failed", "canceled")


class CountsView(View):
    """Generations by status, deleted ones too."""

    pending: int
    processing: int
    completed: int
    failed: int
    canceled: int


class SpentView(CostView):
    """US dollars: what all should cost, what the ended did, and what is reserved for the unfinished."""

    estimated: float
    actual: float
    reserved: float


class SumView(View):
    """What generations add up to: seconds of film and bytes of what is stored or was."""

    counts: CountsView
    seconds: float
    bytes: int
    cost_usd: SpentView


class GroupView(SumView):
    """One group; `id` is a date when it is a day, and null for what was made without a key."""

    id: str | None
    name: str | None


class PriceView(View):
    """When and where the price of a model was looked up."""

    model: str
    checked_at: str | None
    source: str


class RowsView(View):
    """How many rows are kept.

    `told` are webhooks to the client, `heard` those of providers, `answers` those kept for an Idempotency-Key.
    """

    generations: int
    assets: int
    campaigns: int
    endpoints: int
    keys: int
    told: int
    heard: int
    answers: int


class StorageView(View):
    """What a client keeps now: `bytes` are those of its files, of the texts in its rows, and 1 kB for each row."""

    bytes: int
    limit_bytes: int
    file_bytes: int
    text_bytes: int
    rows: RowsView


class UsageView(View):
    """The groups, and all together. `from` and `to` are the days that were counted, null for no bound.

    `storage` is what the client keeps now, whichever days are asked for; null when it is not about one client.
    """

    group_by: str
    first: str | None = Field(serialization_alias="from")
    end: str | None = Field(serialization_alias="to")
    items: list[GroupView]
    total: SumView
    prices: list[PriceView]
    storage: StorageView | None


def report(asked: Asked, found: Report) -> Shown:
    prices = [
        {"model": model.name, "checked_at": str(model.checked_at) if model.checked_at else None, "source": model.source}
        for model in found.models
    ]
    items = [{"id": _id(one), "name": one.name} | _sum(one) for one in found.items]
    days = {"from": _date(asked.first), "to": _date(asked.end)}
    sums = {"items": items, "total": _sum(found.total), "prices": prices}
    return {"group_by": asked.group, **days, **sums, "storage": _kept(found.kept)}


def _kept(kept: KeptByClient | None) -> Shown | None:
    if kept is None:
        return None
    held = kept.held
    sizes = {"bytes": held.bytes, "limit_bytes": kept.limit_bytes, "file_bytes": held.file_bytes}
    return {**sizes, "text_bytes": held.text_bytes, "rows": held.rows}


def _sum(one: Sum) -> Shown:
    return {
        "counts": {name: getattr(one, name) for name in _COUNTS},
        "seconds": one.media_ms / 1000,
        "bytes": one.bytes,
        "cost_usd": {
            "estimated": dollars(one.estimated_micros),
            "actual": dollars(one.actual_micros),
            "reserved": dollars(one.reserved_micros),
        },
    }


def table(asked: Asked, found: Report) -> str:
    """Return the table as RFC 4180 has it, with a head. A text that a spreadsheet would compute is quoted."""
    out = io.StringIO(newline="")
    rows = csv.writer(out)
    costs = ("estimated_usd", "actual_usd", "reserved_usd")
    rows.writerow((asked.group, "name", *_COUNTS, "seconds", "bytes", *costs))
    for one in found.items:
        numbers: list[Any] = [getattr(one, name) for name in _COUNTS]
        money = [f"{each / 1_000_000:.6f}" for each in (one.estimated_micros, one.actual_micros, one.reserved_micros)]
        rows.writerow((_text(_id(one)), _text(one.name), *numbers, f"{one.media_ms / 1000:.3f}", one.bytes, *money))
    return out.getvalue()


def _text(value: str | None) -> str:
    return f"'{value}" if value and value.startswith(_FORMULA) else value or ""


def _id(one: Sum) -> str | None:
    return _date(one.part) if isinstance(one.part, int) else one.part or None


def _date(day: int | None) -> str | None:
    """Return a day since 1970 as a date, or None for one that no calendar has."""
    try:
        return None if day is None else (EPOCH + timedelta(days=day)).date().isoformat()
    except OverflowError:
        return None
