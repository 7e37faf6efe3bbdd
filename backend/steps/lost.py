"""Step 3, after a crash: what its worker was sending when it died."""

from __future__ import annotations

from backend.context import Context
from backend.core.generation import UNCLEAR, Generation
from backend.steps import deadlines, leased


async def mark(ctx: Context, row: Generation, worker: str) -> None:
    """Mark a row whose worker died while it submitted: it is looked for now; what costs nothing is queued again.

    It is not sent again: the provider knows no idempotency key, so a second create could be a second bill.
    """
    provider = ctx.providers.get(row.account_key)
    if provider is not None and provider.repeatable:
        # Without the attempt that was counted for this look: so what kills its worker is set aside in time.
        await leased.requeue(ctx, row, worker, attempts=row.attempts - 1)
        return
    deadline_at = deadlines.deadline_at(ctx, row)
    await leased.move(ctx, row, UNCLEAR, worker, deadline_at=deadline_at, polls=0)
