"""Step 2, the turn: take queued rows that are due when their account has room, or give them up after a day."""

from __future__ import annotations

from typing import Any

from backend.context import Context
from backend.core.errors import InvalidInput
from backend.core.generation import FAILED, QUEUED, WAITING, Failure, Generation
from backend.db import claims, generations, operations, queue, submits
from backend.db.connection import Tx
from backend.logs import times
from backend.steps import deadlines

QUEUE_LIMIT_MS = 24 * 3_600_000  # a request nobody could take for a day is given up


async def claim(
    ctx: Context, worker: str, kinds: tuple[str, ...], limit: int, lease_ms: int, account: str | None = None
) -> list[Generation]:
    """Claim rows to submit now: none for a paused account, and none above its limit in flight.

    They are for this account; without `account`, for all accounts, one after the other.
    """
    if await is_full(ctx):
        return []  # what is made is paid, and could not be stored

    async def work(tx: Tx) -> list[Generation]:
        taken: list[Generation] = []
        for key in [account] if account else ctx.providers:
            taken += await _take(tx, ctx, key, worker, kinds, limit - len(taken), lease_ms)
        return taken

    return _taken(ctx, await ctx.db.write(work))


async def due_accounts(tx: Tx, ctx: Context, kinds: tuple[str, ...]) -> list[str]:
    """Return the accounts for which `claim` would find something if the disk had room."""
    now, due = ctx.now(), []
    for key, provider in ctx.providers.items():
        if await _room(tx, ctx, key, now) > 0 and await queue.any_queued(tx, provider.name, kinds, now):
            due.append(key)
    return due


async def is_full(ctx: Context) -> bool:
    """Return whether the disk is so full that nothing is sent."""
    free = await ctx.free_bytes()
    return free is not None and free < ctx.settings.min_free_mb * 1_000_000


async def give_up(ctx: Context) -> int:
    """Fail what no provider took within a day; return how many rows.

    A row is tried first, however old it is: the service may have been off. What waits for a source ends with it.
    """
    if not deadlines.has_caught_up(ctx):
        return 0
    now = ctx.now()
    before, offered = now - QUEUE_LIMIT_MS, tuple({one.name for one in ctx.providers.values()})
    failure = Failure("provider_unavailable", "No provider could take it within a day.", retryable=True)
    ids = await ctx.db.read(lambda tx: submits.hopeless(tx, before, offered, now, 100))

    async def end(tx: Tx, id: str) -> bool:
        row = await generations.get(tx, id)
        if row is None or row.status not in (WAITING, QUEUED) or row.lease_owner is not None:
            return False  # it has just been taken, and may be on its way
        await generations.move(tx, id, FAILED, now=now, failure=failure)
        return True

    return sum([await ctx.db.write(lambda tx, id=id: end(tx, id)) for id in ids])  # type: ignore[misc]


async def _take(
    tx: Tx, ctx: Context, account: str, worker: str, kinds: tuple[str, ...], limit: int, lease_ms: int
) -> list[Generation]:
    """Claim rows for one account, as many as it has room for and at most `limit`."""
    # Room and claim are read and written in one transaction: else two workers see one free place.
    now = ctx.now()
    room = min(await _room(tx, ctx, account, now), limit)
    if room <= 0:
        return []
    lease: dict[str, Any] = {"owner": worker, "now": now, "until": now + lease_ms}
    provider = ctx.providers[account].name
    return await queue.claim_queued(
        tx,
        provider,
        account,
        kinds=kinds,
        limit=room,
        ready=lambda row: _is_ready(ctx, row),
        after=ctx.served.get(account, ""),
        **lease,
    )


def _taken(ctx: Context, rows: list[Generation]) -> list[Generation]:
    """Return the rows, after their turn and their time in the queue were noted: a transaction may run twice."""
    for row in rows:
        ctx.served[row.account_key] = row.client_id
        if _is_first_try(row):
            times.QUEUE_WAIT.observe(row.account_key, (ctx.now() - row.created_at) / 1000)
    return rows


def _is_first_try(row: Generation) -> bool:
    """Return whether it has waited for its turn alone: not for a provider that was away, nor for a generation."""
    needs_another = any({"image_id", "video_id"} & {*one} for one in row.sources)
    return row.attempts == 1 and row.polls == 0 and not needs_another


async def _room(tx: Tx, ctx: Context, account: str, now: int) -> int:
    """Return how many more rows this account may get now: none while it is paused."""
    if await operations.paused(tx, account, now):
        return 0
    return ctx.settings.max_in_flight - await claims.count_in_flight(tx, ctx.providers[account].name, account, now)


def _is_ready(ctx: Context, row: Generation) -> bool:
    """Return whether it can be sent as it is. Then the claim itself makes it `submitting`: one commit less a row.

    What needs references first, or cannot be built at all, stays queued; `submit.send` begins it or fails it.
    """
    try:
        ctx.catalog.build(row.provider, row.model, row.prompt, row.params)
    except InvalidInput:
        return False
    return not row.source
