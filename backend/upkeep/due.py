"""What has become due, by time or in another process, while nobody rang: one look for all lanes of the worker."""

from __future__ import annotations

from backend.context import Context, LaneName
from backend.core.generation import PROCESSING, STORING, SUBMITTING, UNCLEAR
from backend.db import claims, dependencies, provider_webhooks, webhook_claims
from backend.db.connection import Tx
from backend.steps import submit

_BEGUN: dict[LaneName, str] = {"lost": SUBMITTING, "unclear": UNCLEAR, "poll": PROCESSING, "collect": STORING}


async def lanes(ctx: Context, kinds: tuple[str, ...]) -> list[LaneName]:
    """The lanes that have something to do now, by one read: whoever looks in vain has written nothing."""
    now, full = ctx.now(), await submit.is_full(ctx)

    async def work(tx: Tx) -> list[LaneName]:
        found: list[LaneName] = [lane for lane, status in _BEGUN.items() if await claims.any_due(tx, status, now)]
        if not full and await submit.is_due(tx, ctx, kinds):
            found.append("submit")
        if await webhook_claims.due_targets(tx, now):
            found.append("tell")
        if await provider_webhooks.unhandled(tx, 1):
            found.append("receive")
        if await dependencies.ended(tx, 1):
            found.append("release")
        return found

    return await ctx.db.read(work)
