"""Step 3, after a crash: what its worker was sending when it died."""

from __future__ import annotations

import contextlib

from backend.context import AFTER_AN_OUTCOME, Context
from backend.core import billing
from backend.core.errors import WrongStatus
from backend.core.generation import CANCELED, QUEUED, UNCLEAR, Generation
from backend.db import generations
from backend.db.connection import Tx
from backend.steps import deadlines, leased


async def mark(ctx: Context, row: Generation, worker: str) -> None:
    """Mark a row whose worker died while it submitted: it is looked for now; what costs nothing is queued again.

    It is not sent again: the provider knows no idempotency key, so a second create could be a second bill.
    """
    provider = ctx.providers.get(row.account_key)
    if provider is not None and provider.repeatable:
        await _send_again(ctx, row, worker)
        return
    deadline_at = deadlines.deadline_at(ctx, row)
    await leased.move(ctx, row, UNCLEAR, worker, deadline_at=deadline_at, polls=0)


async def _send_again(ctx: Context, row: Generation, worker: str) -> None:
    """Into the queue, or to its end when a client asked for that.

    The attempts are kept, without the one that was counted for this look: what kills its worker is set aside in time.
    """
    again = {"attempts": row.attempts - 1, "claimed_at": None, "account": None}

    async def work(tx: Tx) -> None:
        current = await generations.get(tx, row.id)
        canceled = current is not None and current.cancel_requested_at is not None
        to, fields = (CANCELED, billing.judge(row, None, was_refused=True)) if canceled else (QUEUED, again)
        await generations.move(tx, row.id, to, now=ctx.now(), owner=worker, **fields)

    with contextlib.suppress(WrongStatus):  # it was not dead: its answer is here
        await ctx.db.write(work)
    ctx.wake(*AFTER_AN_OUTCOME)
