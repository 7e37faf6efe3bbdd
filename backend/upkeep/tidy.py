"""Removes what is too old, or belonged to something deleted, in small transactions."""

from __future__ import annotations

from backend.context import Context
from backend.core import filing
from backend.db import (
    assets,
    audit,
    campaigns,
    clients,
    events,
    generations,
    idempotency_keys,
    operations,
    provider_webhooks,
    webhook_endpoints,
    webhook_retention,
)
from backend.db.connection import Tx

TOLD_BITE = 25  # webhooks to clients: each has up to ten attempts, and more after crashes
BITE = 50  # 13 ms of the writer when it is generations: webhooks are not to wait longer
MOST_BITES = 200  # of one kind in one round, so that a stop is not kept waiting
DAY_MS = 86_400_000
REPEATS_MS = 3 * DAY_MS  # an Idempotency-Key is remembered for three days
WORKERS_MS = 3_600_000
SPOOL_S = 3600.0


async def tidy(ctx: Context) -> None:
    """Do one round: old answers and history, dead workers, and all that belonged to deleted campaigns and clients."""
    await ctx.db.write(lambda tx: operations.prune_workers(tx, ctx.now() - WORKERS_MS))
    for forget in ROUND:
        for _ in range(MOST_BITES):
            if not await forget(ctx):
                break
    await ctx.spool.sweep(SPOOL_S)


async def mark_campaigns(ctx: Context) -> int:
    """Delete a bite of the campaigns of deleted clients; how many."""
    return await ctx.db.write(lambda tx: campaigns.mark_deleted_of_clients(tx, ctx.now(), clients.BITE))


async def forget_answers(ctx: Context) -> int:
    """Forget a bite of the answers kept by Idempotency-Key that are old or of deleted clients; how many."""
    now = ctx.now()

    async def work(tx: Tx) -> int:
        old = await idempotency_keys.prune(tx, now - REPEATS_MS, now, BITE)
        return old + await idempotency_keys.forget_of_deleted(tx, BITE)

    return await ctx.db.write(work)


async def forget_events(ctx: Context) -> int:
    """Forget a bite of the events older than HISTORY_DAYS; how many."""
    before = _history_begins(ctx)
    return await ctx.db.write(lambda tx: events.prune(tx, before, BITE))


async def forget_provider_webhooks(ctx: Context) -> int:
    """Forget a bite of the webhooks that came longer than HISTORY_DAYS ago; how many."""
    before = _history_begins(ctx)
    return await ctx.db.write(lambda tx: provider_webhooks.prune(tx, before, BITE))


async def forget_webhook_deliveries(ctx: Context) -> int:
    """Forget a bite of what clients were told longer than HISTORY_DAYS ago, or nobody is to be told; how many."""
    before = _history_begins(ctx)

    async def work(tx: Tx) -> int:
        old = await webhook_retention.prune(tx, before, TOLD_BITE)
        return old + await webhook_retention.forget_of_deleted(tx, TOLD_BITE)

    return await ctx.db.write(work)


async def forget_audit(ctx: Context) -> int:
    """Forget a bite of the audit log older than HISTORY_DAYS; how many."""
    before = _history_begins(ctx)
    return await ctx.db.write(lambda tx: audit.prune(tx, before, BITE))


async def empty_campaigns(ctx: Context) -> int:
    """Remove a bite of what belonged to deleted campaigns; how much there was to remove."""

    async def work(tx: Tx) -> int:
        left, ids = TOLD_BITE, await campaigns.deleted_with_rows(tx, BITE)
        for id in ids:
            left -= await webhook_retention.forget_of_generation(tx, id, left)
            if left == 0:
                break  # there may be more of them
            if row := await generations.get(tx, id):
                await operations.throw_away(tx, filing.of_generation(row), ctx.now())
                await generations.delete(tx, id)
        return len(ids)

    return await ctx.db.write(work)


async def empty_clients(ctx: Context) -> int:
    """Remove a bite of the assets of deleted clients; how many."""

    async def work(tx: Tx) -> int:
        found = await assets.of_deleted_clients(tx, BITE)
        for asset in found:
            await operations.throw_away(tx, filing.of_asset(asset), ctx.now())
            await assets.delete(tx, asset.id)
        return len(found)

    return await ctx.db.write(work)


async def forget_warnings(ctx: Context) -> int:
    """Forget a bite of what was told about the budgets of deleted campaigns and clients; how many."""
    return await ctx.db.write(lambda tx: events.forget_of_deleted(tx, BITE))


async def forget_campaigns(ctx: Context) -> int:
    """Remove a bite of the deleted campaigns that are empty; how many."""
    return await ctx.db.write(lambda tx: campaigns.forget_deleted(tx, BITE))


async def forget_endpoints(ctx: Context) -> int:
    """Remove a bite of the deleted webhook endpoints whose deliveries are gone; how many."""
    return await ctx.db.write(lambda tx: webhook_endpoints.forget_deleted(tx, BITE))


async def forget_clients(ctx: Context) -> int:
    """Remove a bite of the deleted clients that are empty, with their keys; how many."""
    return await ctx.db.write(lambda tx: clients.forget_deleted(tx, BITE))


async def empty_trash(ctx: Context) -> int:
    """Remove files whose rows are gone: first the bytes, then the note. So a crash between the two leaves neither."""
    names = await ctx.db.read(lambda tx: operations.rubbish(tx, BITE))
    if names:
        await ctx.store.delete_all(names)
        await ctx.db.write(lambda tx: operations.forget_rubbish(tx, names))
    return len(names)


def _history_begins(ctx: Context) -> int:
    return ctx.now() - ctx.settings.history_days * DAY_MS


# What belongs to another thing goes before it: a campaign is forgotten when it is empty, its client after it.
ROUND = (
    mark_campaigns,
    forget_answers,
    forget_events,
    forget_provider_webhooks,
    forget_webhook_deliveries,
    forget_audit,
    empty_campaigns,
    empty_clients,
    forget_warnings,
    forget_campaigns,
    forget_endpoints,
    forget_clients,
    empty_trash,
)
