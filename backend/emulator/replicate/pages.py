"""The list of predictions in pages of a hundred, newest first."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime

from backend.emulator.kit.refusals import Refusal
from backend.emulator.kit.runs import Run

SIZE = 100
_WAYS = ("older-", "newer-")


@dataclass(frozen=True)
class Page:
    """Up to a hundred runs; `older` and `newer` are cursors of the neighbouring pages."""

    items: list[Run]
    older: str | None
    newer: str | None


def cut(runs: list[Run], cursor: str, after: datetime | None, before: datetime | None) -> Page:
    """`runs` are oldest first, `cursor` is "" or one of a page; `after` is inclusive, `before` is not."""
    low = bisect_left(runs, after, key=_created_at) if after else 0
    high = bisect_left(runs, before, key=_created_at) if before else len(runs)
    top = max(low, min(high, _top(cursor, len(runs))))
    bottom = max(low, top - SIZE)
    older = f"older-{bottom}" if bottom > low else None
    newer = f"newer-{top}" if top < high else None
    return Page(runs[bottom:top][::-1], older, newer)


def _top(cursor: str, last: int) -> int:
    """Where the page ends that a cursor names; raises a 422 Refusal."""
    if not cursor:
        return last
    if not (cursor.startswith(_WAYS) and cursor[6:].isdecimal() and len(cursor) < 20):
        raise Refusal(422, "other", "The cursor is not valid.")
    return int(cursor[6:]) + (SIZE if cursor.startswith("newer-") else 0)


def _created_at(run: Run) -> datetime:
    return run.created_at
