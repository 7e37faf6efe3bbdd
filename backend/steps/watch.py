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
AFTER_CANCEL_MS = 1_000  # then it is asked again: whoever canceled waits for the provider's last word
REFUSALS = 4  # "not known" so often in a row is believed: it ends a row that was paid
FARTHEST_MS = 180_000  # nothing of ours is put off for longer; what a provider asks for is kept by its pause


async def claim(
    ctx: Context, worker: str, status: str, limit: int, lease_ms: int, account: str | None = None
) -> list[Generation]:
    """Claim rows of this status and account that are due; without `account`, of all accounts, one after the other.

    The lease lasts `lease_ms`: a worker that dies loses the rows then, and another one claims them.
    """
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
    """Claim rows of the accounts that are not offered any more, as `claim` does.

    Their key was taken out of the settings. Nobody can ask the provider, so only their deadline ends them.
    """
    for account in await ctx.db.read(lambda tx: claims.accounts(tx, status)):
        if account not in ctx.providers and (rows := await claim(ctx, worker, status, limit, lease_ms, account)):
            return rows
    return []


async def poll(ctx: Context, row: Generation, worker: str) -> None:
    """Ask how one prediction stands. Ask the provider to stop it when a client wants that or its time is over."""
    provider = ctx.providers.get(row.account_key)
    overdue = row.deadline_at is not None and ctx.now() > row.deadline_at
    if provider is None or row.provider_id is None:
        await _after_trouble(ctx, row, worker, overdue, NOT_OFFERED_MS / 1000)
        return
    handle = Handle(row.provider_id, row.provider_ref or {})
    stop = outcomes.is_to_stop(ctx, row)
    try:
        outcome, is_stopping = await _hear(provider, handle, stop)
        if provider.cancellation and overdue and not stop and outcome.state == "running":
            outcome = await provider.cancellation.cancel(handle)  # a run that nobody waits for still costs money
    except ProviderUnavailable as trouble:
        await _after_trouble(ctx, row, worker, overdue, trouble.retry_after_s)
        return
    except ProviderRefused as refusal:
        await _after_refusal(ctx, row, worker, refusal)
        return
    if stop and not is_stopping and outcome.state == "running":  # the wish did not arrive: it is sent again soon
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
    """Return how it stands, and whether the provider took our wish to stop it.

    Some providers answer a cancel of what has ended with an error. So a cancel that fails is no trouble by itself: the
    look that follows tells what became of the prediction.
    """
    if stop and provider.cancellation:
        with contextlib.suppress(ProviderUnavailable, ProviderRefused):
            return await provider.cancellation.cancel(handle), True
    return await provider.ask(handle), False


async def heed_the_clock(ctx: Context) -> int:
    """Make due now what a clock that was put back would leave waiting; return how many rows that were.

    A row is due at a time of the clock. When the clock goes back by an hour, every row would wait an hour longer.
    """
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
    """Deal with a prediction that the provider does not know: wait at first, and fail when it says so again and again.

    The first refusal may come from a replica that lags behind the one which took the create. `attempts` counts the
    refusals in a row: it is kept here, and any other answer sets it to 0.
    """
    if row.attempts < REFUSALS:
        await leased.postpone(ctx, row, worker, 2000, tries=row.polls + 1, attempts=row.attempts)
        return
    failure = Failure(refusal.code, refusal.message, refusal.retryable)
    await leased.fail(ctx, row, worker, failure)


async def _give_up(ctx: Context, row: Generation, worker: str) -> None:
    failure = Failure("timed_out", "The provider did not finish it in time.", retryable=True)
    await leased.fail(ctx, row, worker, failure)
