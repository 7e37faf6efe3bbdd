"""Step 4: a provider that sent no webhook is asked how its prediction stands, until its time is over."""

from __future__ import annotations

import contextlib
from typing import Any

from backend.context import AFTER_AN_OUTCOME, Context
from backend.core.errors import ProviderRefused, ProviderUnavailable
from backend.core.generation import Failure, Generation
from backend.core.outcomes import Outcome
from backend.db import claims, leases
from backend.db.connection import Tx
from backend.providers.base import Handle, Provider
from backend.steps import deadlines, inline, leased, outcomes

NOT_OFFERED_MS = 120_000  # between two looks at a row whose account is not offered any more
AFTER_CANCEL_MS = 1_000
REFUSALS = 4
FARTHEST_MS = 180_000  # nothing of ours is put off for longer; what a provider asks for is kept by its pause


async def claim(
    ctx: Context, worker: str, status: str, limit: int, lease_ms: int, account: str | None = None
) -> list[Generation]:
    """Rows of this status and account that are due, under a lease; without `account` of any, one after the other."""
    now = ctx.now()
    lease: dict[str, Any] = {"owner": worker, "now": now, "until": now + lease_ms}

    async def work(tx: Tx) -> list[Generation]:
        taken: list[Generation] = []
        for one in [account] if account else await claims.accounts(tx, status):
            if limit > len(taken):
                taken += await claims.claim_due(tx, status, one, limit=limit - len(taken), **lease)
        return taken

    return await ctx.db.write(work)


async def claim_left(ctx: Context, worker: str, status: str, limit: int, lease_ms: int) -> list[Generation]:
    """As `claim`, of the accounts that are not offered any more."""
    for account in await ctx.db.read(lambda tx: claims.accounts(tx, status)):
        if account not in ctx.providers and (rows := await claim(ctx, worker, status, limit, lease_ms, account)):
            return rows
    return []


async def poll(ctx: Context, row: Generation, worker: str) -> None:
    """Ask how one prediction stands; ask for it to be stopped when that is wanted or its time is over."""
    provider = ctx.providers.get(row.account_key)
    overdue = row.deadline_at is not None and ctx.now() > row.deadline_at
    if provider is None or row.provider_id is None:
        await _after_trouble(ctx, row, worker, overdue, NOT_OFFERED_MS / 1000)
        return
    handle = Handle(row.provider_id, row.provider_ref or {})
    stop = bool(provider.cancellation and row.cancel_requested_at is not None and row.cancel_sent_at is None)
    try:
        outcome, is_stopping = await _hear(provider, handle, stop)
        if provider.cancellation and overdue and not stop and outcome.state == "running":
            outcome = await provider.cancellation.cancel(handle)
    except ProviderUnavailable as trouble:
        await _after_trouble(ctx, row, worker, overdue, trouble.retry_after_s)
        return
    except ProviderRefused as refusal:
        await _after_refusal(ctx, row, worker, refusal)
        return
    if stop and not is_stopping and outcome.state == "running":
        await _after_trouble(ctx, row, worker, overdue, None)
    elif overdue and outcome.state == "running":
        await _give_up(ctx, row, worker)
    elif stop and outcome.state == "running":
        await leased.postpone(ctx, row, worker, AFTER_CANCEL_MS, tries=0, cancel_sent_at=ctx.now())
    else:
        outcome = await inline.keep(ctx, row.id, outcome)
        await ctx.db.write(lambda tx: outcomes.learn(tx, ctx, row.id, outcome, owner=worker))
        ctx.wake(*AFTER_AN_OUTCOME)


async def _hear(provider: Provider, handle: Handle, stop: bool) -> tuple[Outcome, bool]:
    """How it stands, and whether the provider took a wish to stop it: what has ended already may not be stopped."""
    if stop and provider.cancellation:
        with contextlib.suppress(ProviderUnavailable, ProviderRefused):
            return await provider.cancellation.cancel(handle), True
    return await provider.ask(handle), False


async def heed_the_clock(ctx: Context) -> int:
    """A clock that was put back would leave everything due that much later: so it is due now; how many."""
    now, pulled = ctx.now(), 0
    while bite := await ctx.db.write(lambda tx: leases.pull_in(tx, now + FARTHEST_MS, now)):
        pulled += bite
    return pulled


async def _after_trouble(ctx: Context, row: Generation, worker: str, overdue: bool, wait_s: float | None) -> None:
    if overdue and deadlines.is_past(ctx, row.deadline_at or 0):
        await _give_up(ctx, row, worker)
    else:
        wait_ms = int(wait_s * 1000) if wait_s else max(outcomes.next_poll_at(ctx, row) - ctx.now(), 1000)
        await leased.postpone(ctx, row, worker, wait_ms, tries=row.polls + 1)


async def _after_refusal(ctx: Context, row: Generation, worker: str, refusal: ProviderRefused) -> None:
    """A prediction the provider does not know: once may be a replica lagging behind, often in a row is an answer.

    `attempts` is kept here, and any other answer sets it to 0: so it counts the refusals in a row.
    """
    if row.attempts < REFUSALS:
        await leased.postpone(ctx, row, worker, 2000, tries=row.polls + 1, attempts=row.attempts)
        return
    failure = Failure(refusal.code, refusal.message, refusal.retryable)
    await leased.fail(ctx, row, worker, failure)


async def _give_up(ctx: Context, row: Generation, worker: str) -> None:
    failure = Failure("timed_out", "The provider did not finish it in time.", retryable=True)
    await leased.fail(ctx, row, worker, failure)
