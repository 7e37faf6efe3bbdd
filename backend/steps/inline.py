"""Store files that come inside an answer as data URIs, so that no row holds their bytes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from backend.context import Context
from backend.core import filing
from backend.core.errors import InvalidMedia, StorageFull
from backend.core.generation import IN_FLIGHT
from backend.core.outcomes import Outcome
from backend.db import generations
from backend.media import data_uris

DAMAGED = "data:;base64,!"  # stands for a damaged one: it is refused in the same way, and is short


def has_files(outcome: Outcome) -> bool:
    """Return whether a file is inside."""
    return any(data_uris.is_one(one) for one in outcome.outputs)


def without(outcome: Outcome) -> Outcome:
    """Return the outcome as if the prediction still ran, so that it is asked for again by its id."""
    return replace(outcome, state="running", outputs=(), outputs_expire_at=None)


async def keep(ctx: Context, id: str, outcome: Outcome) -> Outcome:
    """Store the files of an outcome, and return it with a name in place of each.

    When the row is not in flight it is returned as it came. `outcomes.learn` throws the files away again when the row
    does not take them. On a full disk they stay in the outcome: it is paid, so a large row is better than a lost file.
    """
    if not has_files(outcome):
        return outcome
    row = await ctx.db.read(lambda tx: generations.get(tx, id))
    if row is None or row.status not in IN_FLIGHT:  # a late word: what it brings would only be thrown away
        return outcome
    try:
        return replace(outcome, outputs=tuple([await _keep(ctx, id, one) for one in outcome.outputs]))
    except StorageFull:
        return outcome


async def _keep(ctx: Context, id: str, output: str) -> str:
    if not data_uris.is_one(output):
        return output
    name = filing.inline(id, ctx.new_id())
    spooled = ctx.spool.new(name)
    try:
        await asyncio.to_thread(data_uris.write, output, spooled)
    except InvalidMedia:
        return DAMAGED
    await ctx.store.put(spooled, name)
    return filing.INLINE + name
