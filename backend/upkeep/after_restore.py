"""After a restore: a request that may have been sent since the backup is looked for, and never sent again."""

from __future__ import annotations

from dataclasses import replace

from backend.context import Context
from backend.core.generation import QUEUED, SUBMITTING, UNCLEAR, WAITING, Generation
from backend.db import dependencies, generations, submits
from backend.db.connection import Tx
from backend.steps import deadlines

BITE = 8  # each may have to be told to 50 endpoints


async def hold_unsent(ctx: Context, since: int) -> int:
    """Make everything `unclear` that was not sent by `since` (milliseconds since 1970), and return how many.

    The webhook or the provider's list adopts what was sent. The rest fails in time as `submit_unknown`. Until then none
    of it counts against the provider's limit: so a service that was restored takes new work at once.
    """

    async def work(tx: Tx) -> int:
        rows = await submits.unsent(tx, BITE)
        for row in rows:
            await _hold(tx, ctx, row, since)
        return len(rows)

    held = 0
    # In bites: no transaction may change more than a thousand rows, and others wait for the writer.
    while bite := await ctx.db.write(work):
        held += bite
    return held


async def _hold(tx: Tx, ctx: Context, row: Generation, since: int) -> None:
    now = ctx.now()
    if row.status == WAITING:
        for source_id in row.source_ids:  # whatever becomes of them, it does not end this one
            await dependencies.settle(tx, row.id, source_id)
        await generations.move(tx, row.id, QUEUED, now=now)
    if row.status != SUBMITTING:
        await generations.move(tx, row.id, SUBMITTING, now=now, claimed_at=since)
    deadline_at = deadlines.deadline_at(ctx, replace(row, claimed_at=now))
    await generations.move(tx, row.id, UNCLEAR, now=now, deadline_at=deadline_at, polls=0, held_at=now)
