"""Cancel and delete generations: what clients do to those they have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backend.context import Context
from backend.core import filing
from backend.core.errors import Conflict, NotFound
from backend.core.generation import CANCELED, FINAL, PROCESSING, QUEUED, STORING, WAITING, Generation, Kind
from backend.core.people import Caller
from backend.db import audit, generations, operations, sources, webhook_retention
from backend.db.audit import Subject
from backend.db.connection import Tx
from backend.manage import access

TOLD_BITE = 50  # webhooks to clients that one transaction deletes: each has up to ten attempts


async def cancel(tx: Tx, ctx: Context, caller: Caller, id: str) -> Generation:
    """Stop it: at once while nothing was sent, else the provider is asked to and has the last word.

    One that cannot be asked runs to its end: then the wish is noted, and what it made is kept, for it is paid.
    Raises Conflict when it is finished or being stored.
    """
    row = await access.generation(tx, caller, id)
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


_TOLD = ("kind", "status", "campaign_id", "provider", "model", "file_name", "bytes", "sha256", "provider_id")


async def remove(ctx: Context, caller: Caller, id: str, kind: Kind | None = None) -> None:
    """Delete one of this kind: in bites what was told about it, then the row. Raises NotFound, and as `delete`."""
    await ctx.db.read(lambda tx: _check_removable(tx, caller, id, kind))
    while await ctx.db.write(lambda tx: webhook_retention.forget_of_generation(tx, id, TOLD_BITE)):
        pass  # after a crash here the generation is still there, with a shorter history of its webhooks
    await ctx.db.write(lambda tx: delete(tx, ctx, caller, id))


async def delete(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Delete the row now and its files soon after. Raises Conflict while it is unfinished or needed."""
    row = await _check_removable(tx, caller, id)
    await operations.throw_away(tx, filing.of_generation(row), ctx.now())
    await generations.delete(tx, id)
    gone = {name: getattr(row, name) for name in _TOLD}
    await audit.record(tx, caller, "generation.deleted", Subject("generation", id, row.client_id), ctx.now(), old=gone)


async def _check_removable(tx: Tx, caller: Caller, id: str, kind: Kind | None = None) -> Generation:
    row = await access.generation(tx, caller, id)
    if kind not in (None, row.kind):
        raise NotFound(f"There is no such {kind}.", code=f"{kind}_not_found")
    if row.status not in FINAL:
        raise Conflict("The generation is unfinished: cancel it first.", code="unfinished")
    if await sources.are_needed(tx, id=id):
        raise Conflict("Another generation that is unfinished needs it.", code="in_use")
    return row
