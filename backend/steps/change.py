"""What clients do to generations they have: cancel, retry, delete."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from backend import backlog, filing, quota, tenancy
from backend.context import Context
from backend.db import balances, dependencies, generations, operations, sources, webhook_deliveries
from backend.db.connection import Tx
from backend.errors import Conflict, NotFound
from backend.model import (
    CANCELED,
    COMPLETED,
    FINAL,
    PROCESSING,
    QUEUED,
    STORING,
    WAITING,
    Caller,
    Generation,
    Kind,
)

TOLD_BITE = 50  # webhooks to clients that go at once: each has up to ten attempts
MOST_DEPTH = 50  # sources that are retried with one request


async def cancel(tx: Tx, ctx: Context, caller: Caller, id: str) -> Generation:
    """Stop it: at once while nothing was sent, else the provider is asked to and has the last word.

    Raises Conflict when it is finished or being stored.
    """
    row = await tenancy.generation(tx, caller, id)
    if row.status == CANCELED:
        return row
    if row.status == STORING or row.status in FINAL:
        raise Conflict(f"The generation is {row.shown_status}: it cannot be canceled any more.", code="not_cancelable")
    if row.status in (WAITING, QUEUED):
        return await generations.move(tx, id, CANCELED, now=ctx.now())
    asked_at = row.cancel_requested_at or ctx.now()
    sooner: dict[str, Any] = {"due_at": ctx.now()} if row.status == PROCESSING and row.lease_owner is None else {}
    await generations.note(tx, id, status=row.status, cancel_requested_at=asked_at, **sooner)
    return replace(row, cancel_requested_at=asked_at)


async def retry(tx: Tx, ctx: Context, caller: Caller, id: str) -> Generation:
    """A new generation with the same request, which names the old one. A source that failed is retried too.

    Raises Conflict unless the old one failed or was canceled, TooManyRequests when too much is unfinished,
    BudgetExceeded when it costs more than is left.
    """
    old = await tenancy.generation(tx, caller, id)
    if old.status not in FINAL or old.status == COMPLETED:
        raise Conflict(f"The generation is {old.shown_status}: only a failed one can be retried.", code="not_retryable")
    return await _again(tx, ctx, caller, old, 0)


async def _again(tx: Tx, ctx: Context, caller: Caller, old: Generation, depth: int) -> Generation:
    model = ctx.catalog.models.get(old.model)
    if model is None or model.retired or old.provider not in ctx.providers:
        raise Conflict(f"{old.model} is not offered here any more.", code="not_retryable")
    if depth > MOST_DEPTH:
        raise Conflict("Too many generations wait for each other.", code="not_retryable")
    await quota.admit(tx, ctx, old.client_id)
    await backlog.admit(tx, ctx, old.client_id, 1)
    try:
        source, missing = await _sources_again(tx, ctx, caller, old.source, depth)
    except NotFound as gone:
        raise Conflict("Something it starts from was deleted.", code="not_retryable") from gone
    row = _fresh(ctx, caller, old, source, WAITING if missing else QUEUED)
    await balances.admit(tx, row.client_id, row.campaign_id, row.reserved_micros)
    await generations.insert(tx, row)
    for source_id in missing:
        await dependencies.insert(tx, row.id, source_id)
    return row


async def _sources_again(
    tx: Tx, ctx: Context, caller: Caller, old: dict[str, Any], depth: int
) -> tuple[dict[str, Any], list[str]]:
    """The same sources, where those that failed are retried too; and which of them are unfinished.

    Raises NotFound when one was deleted.
    """
    source, missing = dict(old), []
    if "asset_id" in source:
        await tenancy.asset(tx, caller, source["asset_id"])
    for name in ("image_id", "video_id"):
        needed = await tenancy.generation(tx, caller, source[name]) if name in source else None
        if needed and needed.status in FINAL and needed.status != COMPLETED:
            needed = await _again(tx, ctx, caller, needed, depth + 1)
            source[name] = needed.id
        if needed and needed.status not in FINAL:
            missing.append(needed.id)
    if "end_image" in source:
        source["end_image"], more = await _sources_again(tx, ctx, caller, source["end_image"], depth)
        missing += more
    return source, missing


def _fresh(ctx: Context, caller: Caller, old: Generation, source: dict[str, object], status: str) -> Generation:
    """The old request without anything that came of it."""
    now = ctx.now()
    kept = {name: getattr(old, name) for name in _REQUEST}
    empty = dict.fromkeys(Generation.__dataclass_fields__)
    state = {"attempts": 0, "polls": 0, "outputs": [], "possibly_charged": False, "created_at": now, "due_at": now}
    ours = {"id": ctx.new_id(), "status": status, "nonce": secrets.token_urlsafe(24), "key_id": caller.key_id}
    return Generation(**{**empty, **kept, **state, **ours, "source": source, "retry_of": old.id})


_REQUEST = (
    "kind",
    "client_id",
    "campaign_id",
    "provider",
    "model",
    "prompt",
    "params",
    "metadata",
    "webhook_url",
    "cost_estimated_micros",
)


async def remove(ctx: Context, caller: Caller, id: str, kind: Kind | None = None) -> None:
    """Remove one, of this kind: what was told about it in bites, then the row. Raises NotFound, and as `delete`."""
    await ctx.db.read(lambda tx: _check_removable(tx, caller, id, kind))
    while await ctx.db.write(lambda tx: webhook_deliveries.forget_of_generation(tx, id, TOLD_BITE)):
        pass  # a crash here leaves a generation of which less is told
    await ctx.db.write(lambda tx: delete(tx, ctx, caller, id))


async def delete(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Remove the row now and its bytes soon after. Raises Conflict while it is unfinished or needed."""
    row = await _check_removable(tx, caller, id)
    await operations.throw_away(tx, filing.of_generation(row), ctx.now())
    await generations.delete(tx, id)


async def _check_removable(tx: Tx, caller: Caller, id: str, kind: Kind | None = None) -> Generation:
    row = await tenancy.generation(tx, caller, id)
    if kind not in (None, row.kind):
        raise NotFound(f"There is no such {kind}.", code=f"{kind}_not_found")
    if row.status not in FINAL:
        raise Conflict("The generation is unfinished: cancel it first.", code="unfinished")
    if await sources.are_needed(tx, id=id):
        raise Conflict("Another generation that is unfinished needs it.", code="in_use")
    return row
