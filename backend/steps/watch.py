"""Step 4: what no webhook told us is asked, adopted, or given up in time."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from backend.context import AFTER_AN_OUTCOME, Context
from backend.core import billing
from backend.core.errors import ProviderRefused, ProviderUnavailable
from backend.core.generation import FAILED, QUEUED, UNCLEAR, WAITING, Failure, Generation, Outcome
from backend.core.ids import is_id
from backend.db import claims, generations, leases, submits
from backend.db.connection import Tx
from backend.providers.base import Handle, Listed, Order, Provider
from backend.steps import inline, outcomes

SENDING_MS = 60_000  # a create that takes longer is cut off
SKEW_MS = 120_000  # the provider's clock may differ from ours by this much
LOOKS_MS = (10_000, 30_000, 90_000)  # after the first look at the list; then every LATER_LOOKS_MS
LATER_LOOKS_MS = 120_000
AFTER_CANCEL_MS = 1_000
REFUSALS = 4
FARTHEST_MS = 180_000  # nothing of ours is put off for longer; what a provider asks for is kept by its pause
QUEUE_LIMIT_MS = 24 * 3_600_000  # a request nobody could take for a day is given up


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


async def mark_lost(ctx: Context, row: Generation, worker: str) -> None:
    """Its worker died while submitting: it may be running and billed, so it is looked for, not sent again."""
    deadline_at = outcomes.deadline_at(ctx, row)
    await outcomes.move(ctx, row, UNCLEAR, worker, deadline_at=deadline_at, polls=0)


async def poll(ctx: Context, row: Generation, worker: str) -> None:
    """Ask how one prediction stands; ask for it to be stopped when that is wanted or its time is over."""
    provider = ctx.providers.get(row.account_key)
    overdue = row.deadline_at is not None and ctx.now() > row.deadline_at
    if provider is None or row.provider_id is None:
        await _after_trouble(ctx, row, worker, overdue, LATER_LOOKS_MS / 1000)
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
        await outcomes.postpone(ctx, row, worker, AFTER_CANCEL_MS, tries=0, cancel_sent_at=ctx.now())
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


def look_for(ctx: Context, rows: list[Generation], worker: str) -> Callable[[Generation], Awaitable[None]]:
    """Search a provider's list once for all these unclear submits; what is returned adopts what is found for one."""
    lists: dict[str, asyncio.Task[Found | None]] = {}

    async def adopt(row: Generation) -> None:
        name = row.account_key
        if name not in lists:
            lists[name] = asyncio.create_task(_search(ctx, name, [each for each in rows if each.account_key == name]))
        await _adopt(ctx, row, worker, await lists[name])

    return adopt


async def give_up_queued(ctx: Context) -> int:
    """Fail what nobody could take for a day; how many.

    However old it is, what is due is tried first: the service may have been off. What waits for a source ends with it.
    """
    if not outcomes.has_caught_up(ctx):
        return 0
    now = ctx.now()
    before, offered = now - QUEUE_LIMIT_MS, tuple(ctx.offered)
    failure = Failure("provider_unavailable", "No provider could take it within a day.", retryable=True)
    ids = await ctx.db.read(lambda tx: submits.hopeless(tx, before, offered, now, 100))

    async def end(tx: Tx, id: str) -> bool:
        row = await generations.get(tx, id)
        if row is None or row.status not in (WAITING, QUEUED) or row.lease_owner is not None:
            return False  # it has just been taken, and may be on its way
        await generations.move(tx, id, FAILED, now=now, failure=failure)
        return True

    return sum([await ctx.db.write(lambda tx, id=id: end(tx, id)) for id in ids])  # type: ignore[misc]


async def heed_the_clock(ctx: Context) -> int:
    """A clock that was put back would leave everything due that much later: so it is due now; how many."""
    now, pulled = ctx.now(), 0
    while bite := await ctx.db.write(lambda tx: leases.pull_in(tx, now + FARTHEST_MS, now)):
        pulled += bite
    return pulled


class Found:
    """A provider's list, so that a row need not be compared with all of it."""

    def __init__(self, listed: Sequence[Listed]) -> None:
        self._named: dict[str, list[Listed]] = defaultdict(list)
        for each in listed:
            for part in (each.webhook or "").split("/"):
                if is_id(part):
                    self._named[part].append(each)
        self._nameless = sorted((each for each in listed if each.webhook is None), key=lambda each: each.created_at)

    def perhaps_of(self, row: Generation) -> list[Listed]:
        """What reports to this row; then what does not tell and was made about when the row was claimed.

        For a row that a restore holds that is the time of the backup alone. It may have been sent at any time since,
        but so may another client's equal request, of which no row is left: what does not tell is left alone.
        """
        claimed_at = row.claimed_at or row.created_at
        first = bisect_left(self._nameless, claimed_at - SKEW_MS, key=lambda each: each.created_at)
        end = bisect_right(self._nameless, claimed_at + SKEW_MS, key=lambda each: each.created_at)
        return self._named.get(row.id, []) + self._nameless[first:end]


async def _search(ctx: Context, account: str, rows: list[Generation]) -> Found | None:
    """The account's list of the time in which all these can have been sent; None when it cannot be read.

    A provider without a list has nothing that could be found: then a webhook adopts the row, or its deadline ends it.
    """
    if account not in ctx.providers:
        return None
    listing = ctx.providers[account].listing
    if listing is None:
        return Found([])
    times = [_sent_between(row) for row in rows]
    since, until = min(first for first, _ in times), max(last for _, last in times) + SENDING_MS
    try:
        listed = await listing.between(since, until)
    except ProviderUnavailable:
        return None
    return await asyncio.to_thread(Found, listed)


async def _adopt(ctx: Context, row: Generation, worker: str, found: Found | None) -> None:
    """Adopt what is in the list; give up when it is not, its time is over and the list could be read (None: not)."""
    candidates = found.perhaps_of(row) if found else []

    async def work(tx: Tx) -> bool:
        for candidate in candidates:
            if not await _is_of(tx, ctx, row, candidate):
                continue
            outcome = candidate.outcome
            told = await outcomes.learn(
                tx, ctx, row.id, inline.without(outcome) if inline.has_files(outcome) else outcome
            )
            if told not in ("another prediction", "unknown"):
                return True
        return False

    adopted = await ctx.db.write(work) if candidates else False
    overdue = row.deadline_at is not None and ctx.now() > row.deadline_at
    if adopted:
        ctx.wake(*AFTER_AN_OUTCOME)
    elif overdue and (found is not None or outcomes.is_past(ctx, row.deadline_at or 0)):
        await _give_up_unclear(ctx, row, worker)
    else:
        wait_ms = LOOKS_MS[row.polls] if row.polls < len(LOOKS_MS) else LATER_LOOKS_MS
        await outcomes.postpone(ctx, row, worker, wait_ms, tries=row.polls + 1)


async def _is_of(tx: Tx, ctx: Context, row: Generation, candidate: Listed) -> bool:
    """Whether this prediction was made by this row's submit.

    By our nonce in its webhook URL; where the list does not show that, by an equal request in the time of the
    submit that no generation has and that nobody is sending just now. Two equal requests may swap, so it is
    not enough for one that starts from somebody's picture: the list does not tell which.
    """
    if candidate.webhook is not None:
        return f"/{row.id}/{row.nonce}" in candidate.webhook
    if row.source or not _same_request(ctx, row, candidate):
        return False
    return not await submits.any_submitting(tx, row.model, row.prompt, row.params)


def _sent_between(row: Generation) -> tuple[int, int]:
    """When its create can have come to the provider, by any clock: at the claim.

    For one that a restore holds, from the backup on until the restore.
    """
    claimed_at = row.claimed_at or row.created_at
    return claimed_at - SKEW_MS, max(claimed_at, row.held_at or 0) + SKEW_MS


def _same_request(ctx: Context, row: Generation, candidate: Listed) -> bool:
    """All that we sent, except references: their URLs are made anew at every submit."""
    model, provider = ctx.catalog.model(row.provider, row.model), ctx.providers[row.account_key]
    if model is None or provider.listing is None:
        return False  # nobody can say any more what was sent
    inputs = model.build(row.prompt, row.params)
    ours = provider.prepare(Order(row.id, row.model, inputs, None, model.cancel_after_s))
    return provider.listing.is_of(ours, candidate)


async def _after_trouble(ctx: Context, row: Generation, worker: str, overdue: bool, wait_s: float | None) -> None:
    if overdue and outcomes.is_past(ctx, row.deadline_at or 0):
        await _give_up(ctx, row, worker)
    else:
        wait_ms = int(wait_s * 1000) if wait_s else max(outcomes.next_poll_at(ctx, row) - ctx.now(), 1000)
        await outcomes.postpone(ctx, row, worker, wait_ms, tries=row.polls + 1)


async def _after_refusal(ctx: Context, row: Generation, worker: str, refusal: ProviderRefused) -> None:
    """A prediction the provider does not know: once may be a replica lagging behind, often in a row is an answer.

    `attempts` is kept here, and any other answer sets it to 0: so it counts the refusals in a row.
    """
    if row.attempts < REFUSALS:
        await outcomes.postpone(ctx, row, worker, 2000, tries=row.polls + 1, attempts=row.attempts)
        return
    failure = Failure(refusal.code, refusal.message, refusal.retryable)
    await _fail(ctx, row, worker, failure)


async def _give_up(ctx: Context, row: Generation, worker: str) -> None:
    failure = Failure("timed_out", "The provider did not finish it in time.", retryable=True)
    await _fail(ctx, row, worker, failure)


async def _give_up_unclear(ctx: Context, row: Generation, worker: str) -> None:
    message = "It is not known whether the provider took it; it may have been charged. It was not sent again."
    await _fail(ctx, row, worker, Failure("submit_unknown", message, retryable=True))


async def _fail(ctx: Context, row: Generation, worker: str, failure: Failure) -> None:
    """End it without a last word of the provider."""
    bill = billing.judge(row, ctx.catalog.model(row.provider, row.model))
    await outcomes.move(ctx, row, FAILED, worker, failure=failure, **bill)
