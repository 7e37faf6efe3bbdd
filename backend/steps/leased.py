"""What a worker does with a row that it has under a lease: it moves it, puts it off, or fails it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from backend.context import AFTER_AN_OUTCOME, AFTER_THE_END, Context
from backend.core import billing
from backend.core.errors import NotAMove, WrongStatus
from backend.core.generation import CANCELED, FAILED, FINAL, MOVES, QUEUED, Failure, Generation
from backend.db import generations
from backend.db.connection import Tx


async def move(ctx: Context, row: Generation, to: str, worker: str, **fields: Any) -> bool:
    """Move a row that this worker holds; return False when a webhook, a client or another worker was faster.

    Raises NotAMove when no row of its status can go there. That is no race but an error of ours, and nobody else will
    make it good: if it were taken for a race, the row would be claimed and left again for ever.
    """
    if row.status not in MOVES[to]:
        raise NotAMove(f"{row.id} is {row.status}, and no such row becomes {to}")
    try:
        await ctx.db.write(lambda tx: generations.move(tx, row.id, to, now=ctx.now(), owner=worker, **fields))
    except WrongStatus:
        return False
    ctx.wake(*(AFTER_THE_END if to in FINAL else AFTER_AN_OUTCOME))
    return True


async def requeue(ctx: Context, row: Generation, worker: str, **later: Any) -> None:
    """Move a row whose create certainly left nothing back into the queue, or to its end when a client canceled it.

    `later` are columns of a row that is queued again. Any account may take it then.
    """

    async def work(tx: Tx) -> None:
        current = await generations.get(tx, row.id)
        canceled = current is not None and current.cancel_requested_at is not None
        free = billing.judge(row, None, was_refused=True)
        to, fields = (CANCELED, free) if canceled else (QUEUED, {"claimed_at": None, "account": None, **later})
        await generations.move(tx, row.id, to, now=ctx.now(), owner=worker, **fields)

    with suppress(WrongStatus):  # a webhook adopted it, or its worker was not dead: it was taken after all
        await ctx.db.write(work)
    ctx.wake(*AFTER_AN_OUTCOME)


async def postpone(ctx: Context, row: Generation, worker: str, wait_ms: float, *, tries: int, **fields: Any) -> None:
    """Look at the row again after `wait_ms`. The lease ends now. The next wait is computed from `tries`."""
    # `attempts` counts claims that came to no end, and five of them set a row aside. This one came to an end.
    later = {"due_at": ctx.now() + int(wait_ms), "polls": tries, "lease_owner": None, "attempts": 0, **fields}
    await ctx.db.write(lambda tx: generations.note(tx, row.id, status=row.status, owner=worker, **later))


async def fail(ctx: Context, row: Generation, worker: str, failure: Failure, **fields: Any) -> None:
    """Fail a row by our own decision: what it may have cost is judged from what the row knows."""
    bill = billing.judge(row, ctx.catalog.model(row.provider, row.model))
    await move(ctx, row, FAILED, worker, failure=failure, **fields, **bill)
