"""What has become due by time or in another process, while nobody rang a bell: one look for all lanes."""

from __future__ import annotations

from backend.context import Context, LaneName
from backend.core.generation import PROCESSING, STORING, SUBMITTING, UNCLEAR
from backend.db import claims, dependencies, provider_webhooks, webhook_claims
from backend.db.connection import Tx
from backend.steps import queue

Lane = tuple[LaneName, str | None]  # and the account, for one that serves an account alone
_BEGUN: dict[LaneName, str] = {"lost": SUBMITTING, "unclear": UNCLEAR, "poll": PROCESSING, "collect": STORING}


async def lanes(ctx: Context, kinds: tuple[str, ...]) -> list[Lane]:
    """Return the lanes that have something to do now, by one read. A look in vain writes nothing."""
    # Rows that are due but have no place would wake the lane again and again for nothing.
    now, full = ctx.now(), await queue.is_full(ctx)

    async def work(tx: Tx) -> list[Lane]:
        found = [
            (lane, account if account in ctx.providers else None)
            for lane, status in _BEGUN.items()
            for account in await claims.accounts(tx, status)
            if await claims.any_due(tx, status, account, now)
        ]
        if not full:
            found += [("submit", account) for account in await queue.due_accounts(tx, ctx, kinds)]
        others: dict[LaneName, object] = {
            "tell": await webhook_claims.due_targets(tx, now),
            "receive": await provider_webhooks.unhandled(tx, 1),
            "release": await dependencies.ended(tx, 1),
        }
        return found + [(lane, None) for lane, due in others.items() if due]

    return await ctx.db.read(work)
