"""Check a request, admit it, and write its rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backend.context import Context
from backend.core.errors import InvalidInput, OutOfSpace
from backend.core.generation import QUEUED, WAITING, Generation, Kind
from backend.core.models import Model
from backend.core.people import Caller
from backend.core.requests import GenerationRequest
from backend.db import balances, generations
from backend.db.connection import Tx
from backend.manage import access, backlog, storage_quota, webhook_targets
from backend.steps import sources
from backend.steps.request.params import check_numbers, images
from backend.steps.request.rows import choose_model, copy_of, row_of, start_image


async def ensure_room(ctx: Context) -> None:
    """Raise OutOfSpace while the disk is nearly full: the result of what is accepted has to be stored."""
    free = await ctx.free_bytes()
    if free is not None and free < ctx.settings.min_free_mb * 1_000_000:
        raise OutOfSpace(retry_after=60)


async def accept(tx: Tx, ctx: Context, caller: Caller, kind: Kind, wanted: GenerationRequest) -> list[Generation]:
    """Write the rows of one request, and return them: as many as `copies`.

    A video of a prompt alone gets a start image first, as a generation of its own that it waits for.
    Raises NotFound, InvalidInput, TooManyRequests, BudgetExceeded and ClientFull.
    """
    campaign = await access.campaign(tx, caller, wanted.campaign_id)
    if wanted.client_id not in (None, campaign.client_id):
        raise InvalidInput.of("client_id", "does not agree with the campaign and the key")
    model = choose_model(ctx, kind, wanted.provider, wanted.model)
    webhook_targets.check(ctx, wanted.webhook_url, "webhook_url")
    first = row_of(ctx, caller, campaign, model, wanted)
    missing = await _check_sources(tx, campaign.client_id, model, first.source)
    starts = []
    if model.makes_start_image and not images(first.source):
        starts = [start_image(ctx, caller, campaign, model, wanted)]
        first = replace(first, source={"image_id": starts[0].id, **first.source})
        missing.append(starts[0].id)
    rows = [first] + [copy_of(ctx, first) for _ in range((wanted.copies or 1) - 1)]
    await _admit(tx, ctx, starts + rows)
    for start in starts:  # first, since the rows that wait for them name them
        await generations.insert(tx, start)
    if wanted.copies or missing:  # a row has sixty columns: a copy costs as much as a small query
        batch_id = ctx.new_id() if wanted.copies else None
        rows = [replace(row, batch_id=batch_id, status=WAITING if missing else QUEUED) for row in rows]
    for row in rows:
        await sources.keep(tx, row, missing)
    return rows


async def _admit(tx: Tx, ctx: Context, rows: list[Generation]) -> None:
    """Raise BudgetExceeded, ClientFull or TooManyRequests unless all these rows of one campaign may be written.

    They are counted before the first is written, with every copy and start image: a request is admitted whole.
    """
    client_id, campaign_id = rows[0].client_id, rows[0].campaign_id
    await balances.admit(tx, client_id, campaign_id, sum(row.reserved_micros for row in rows))
    await storage_quota.admit(tx, ctx, client_id)
    await backlog.admit(tx, ctx, client_id, len(rows))


async def _check_sources(tx: Tx, client_id: str, model: Model, source: dict[str, Any]) -> list[str]:
    """Return the unfinished generations among the sources: the row waits for them.

    Raises NotFound for what the client does not have, InvalidInput for what the model cannot use.
    """
    check_numbers(model, source)
    start, end = model.references.get(model.start) if model.start else None, model.references.get("last_frame")
    missing = await sources.check(tx, client_id, source, "", start)
    return missing + await sources.check(tx, client_id, source.get("end_image") or {}, "end_image.", end)
