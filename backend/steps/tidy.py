"""What time makes superfluous is removed, in small bites."""

from __future__ import annotations

from backend import filing
from backend.context import Context
from backend.db import clients, generations, operations, repeats
from backend.db.connection import Tx
from backend.ids import is_id

BITE = 200
REPEATS_MS = 3 * 86_400_000  # an Idempotency-Key is remembered for three days
WORKERS_MS = 3_600_000
SPOOL_S = 3600.0


async def tidy(ctx: Context) -> None:
    """One round: expired answers, dead workers, deleted campaigns, files without rows."""
    now = ctx.now()
    await ctx.db.write(lambda tx: repeats.prune(tx, now - REPEATS_MS, BITE))
    await ctx.db.write(lambda tx: operations.prune_workers(tx, now - WORKERS_MS))
    await empty_campaigns(ctx)
    await empty_trash(ctx)
    await ctx.storage.sweep(SPOOL_S)


async def empty_campaigns(ctx: Context) -> int:
    """Remove a bite of what belonged to deleted campaigns; how much."""

    async def work(tx: Tx) -> int:
        ids = await clients.deleted_with_rows(tx, BITE)
        for id in ids:
            if row := await generations.get(tx, id):
                await operations.throw_away(tx, filing.of_generation(row), ctx.now())
                await generations.delete(tx, id)
        return len(ids)

    return await ctx.db.write(work)


async def empty_trash(ctx: Context) -> int:
    """Remove files whose rows are gone: first the bytes, then the note, so a crash leaves neither behind."""
    names = await ctx.db.read(lambda tx: operations.rubbish(tx, BITE))
    for name in names:
        await ctx.storage.delete(name)
    if names:
        await ctx.db.write(lambda tx: operations.forget_rubbish(tx, names))
    return len(names)


async def sweep_orphans(ctx: Context) -> int:
    """At start: remove stored files that no row names, as a crash between file and commit leaves them."""
    removed, batch = 0, list[str]()
    async for name in ctx.storage.names():
        batch.append(name)
        if len(batch) == BITE:
            removed, batch = removed + await _remove_unknown(ctx, batch), []
    return removed + await _remove_unknown(ctx, batch)


async def _remove_unknown(ctx: Context, names: list[str]) -> int:
    unknown = await ctx.db.read(lambda tx: operations.without_row(tx, [n for n in names if is_id(n[:36])]))
    for name in unknown:
        await ctx.storage.delete(name)
    return len(unknown)
