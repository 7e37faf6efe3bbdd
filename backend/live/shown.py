"""Generations and events as the JSON that clients are shown and told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from backend.context import Context
from backend.core import filing
from backend.core.events import Event
from backend.core.filing import Output
from backend.core.formats import dollars, time
from backend.core.generation import PROCESSING, Generation
from backend.live import links
from backend.live.views import FailureView, FileView, GenerationView

Shown = dict[str, Any]
_GENERATION, _FAILURE, _FILE = (tuple(view.model_fields) for view in (GenerationView, FailureView, FileView))


def generation(ctx: Context, row: Generation, at: int | None = None) -> Shown:
    """Return one generation in the shape of `GenerationView`.

    `url` is there exactly when it is completed; its year begins now, or `at` (milliseconds since 1970).
    """
    made = _made(ctx, row, at)
    return {name: made[name] if name in made else getattr(row, name) for name in _GENERATION}


def _made(ctx: Context, row: Generation, at: int | None) -> Shown:
    """Return the fields that are shown otherwise than they stand in the row."""
    noun, done, failure = f"{row.kind}s", row.status == "completed", row.failure
    url = links.link(ctx, noun, row.id, at=at) if done else None
    return {
        "status": row.shown_status,
        "stage": row.status,
        "url": url,
        "poster_url": links.link(ctx, noun, row.id, "poster", at=at) if done and row.poster_name else None,
        "cost_usd": {"estimated": dollars(row.cost_estimated_micros), "actual": dollars(row.cost_actual_micros)},
        "error": {name: getattr(failure, name) for name in _FAILURE} if failure else None,
        "media": {"state": row.media_state or "read", "why": row.media_why},
        "files": [_file(ctx, row, one, url, at) for one in filing.outputs(row)],
        "created_at": time(row.created_at),
        "submitted_at": time(row.submitted_at),
        "completed_at": time(row.finished_at),
    }


def _file(ctx: Context, row: Generation, one: Output, own_url: str | None, at: int | None) -> Shown:
    """Show one output of several, or the only one. One that is missing has no bytes and no URL."""
    url = own_url if one.file_name == row.file_name else None
    if url is None and one.file_name:
        url = links.link(ctx, f"{row.kind}s", row.id, at=at, file=one.index)
    made = {"url": url, "media": {"state": one.state, "why": one.why}}
    return {name: made[name] if name in made else getattr(one, name) for name in _FILE}


def event(ctx: Context, one: Event, row: Generation | None) -> Shown:
    """Return one event: the body of a webhook, and the data of a stream. `row` is its generation, if it has one.

    The same event always says the same: what became of the generation after it is left out.
    """
    about = generation(ctx, _as_of(one, row), one.created_at) if row else one.subject
    return {"id": one.id, "type": one.type, "created_at": time(one.created_at), "data": about}


def _as_of(one: Event, row: Generation) -> Generation:
    """The row as it was when the event was written: webhooks are sent again for days, and must not change."""
    if one.type != "generation.processing":
        return replace(row, **json.loads(row.bill_told)) if row.bill_told else row
    without: dict[str, Any] = dict.fromkeys(_OF_THE_END)
    if row.submitted_at is not None and row.submitted_at > one.created_at:
        without["submitted_at"] = None  # it was unclear then, and adopted later
    return replace(row, status=PROCESSING, possibly_charged=False, **without)


_OF_THE_END = (
    "progress",
    "file_name",
    "poster_name",
    "content_type",
    "bytes",
    "sha256",
    "width",
    "height",
    "duration_s",
    "media_state",
    "media_why",
    "more_files",
    "cost_actual_micros",
    "failure",
    "finished_at",
)
