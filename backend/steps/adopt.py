"""Step 4, for submits whose answer was never seen: look for them in the provider's list, or give them up in time."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from backend.context import AFTER_AN_OUTCOME, Context
from backend.core.errors import ProviderUnavailable
from backend.core.generation import Failure, Generation
from backend.core.ids import is_id
from backend.db import submits
from backend.db.connection import Tx
from backend.providers.base import Listed, Order
from backend.steps import deadlines, inline, leased, outcomes

SENDING_MS = 60_000  # a create that takes longer is cut off, so the provider made it by then or never
SKEW_MS = 120_000  # the provider's clock may differ from ours by this much
LOOKS_MS = (10_000, 30_000, 90_000)  # after the first look at the list; then every LATER_LOOKS_MS
LATER_LOOKS_MS = 120_000


def look_for(ctx: Context, rows: list[Generation], worker: str) -> Callable[[Generation], Awaitable[None]]:
    """Return a function that adopts what the provider's list shows for one of these unclear submits.

    The list of an account is read once for all of them, when the first row asks for it.
    """
    # The list has pages of a hundred and a rate limit: one walk for each row would use it up after an outage.
    lists: dict[str, asyncio.Task[Found | None]] = {}

    async def adopt(row: Generation) -> None:
        name = row.account_key
        if name not in lists:
            lists[name] = asyncio.create_task(_search(ctx, name, [each for each in rows if each.account_key == name]))
        await _adopt(ctx, row, worker, await lists[name])

    return adopt


class Found:
    """A provider's list, indexed by what its entries report to and by when they were made.

    Two hundred rows are compared with thousands of entries: each row with all of them would hold up the event loop.
    """

    def __init__(self, listed: Sequence[Listed]) -> None:
        self._named: dict[str, list[Listed]] = defaultdict(list)
        for each in listed:
            for part in (each.webhook or "").split("/"):
                if is_id(part):
                    self._named[part].append(each)
        self._nameless = sorted((each for each in listed if each.webhook is None), key=lambda each: each.created_at)

    def perhaps_of(self, row: Generation) -> list[Listed]:
        """Return what reports to this row; then what shows no webhook and was made about when the row was claimed.

        For a row that a restore holds, that is the time of the backup alone. The row may have been sent at any time
        since, but so may another client's equal request, of which no row is left: such an entry stays untouched.
        """
        claimed_at = row.claimed_at or row.created_at
        first = bisect_left(self._nameless, claimed_at - SKEW_MS, key=lambda each: each.created_at)
        end = bisect_right(self._nameless, claimed_at + SKEW_MS, key=lambda each: each.created_at)
        return self._named.get(row.id, []) + self._nameless[first:end]


async def _search(ctx: Context, account: str, rows: list[Generation]) -> Found | None:
    """Return the account's list of the time in which all these can have been sent; None when it cannot be read.

    For a provider without a list it is empty: then a webhook adopts the row, or its deadline ends it.
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
    return await asyncio.to_thread(Found, listed)  # thousands of entries take long enough to delay requests


async def _adopt(ctx: Context, row: Generation, worker: str, found: Found | None) -> None:
    """Adopt what is in the list. Give up when it is not there, the row's time is over and the list could be read.

    `found` is None when it could not be read: then "it is not there" would be a guess.
    """
    candidates = found.perhaps_of(row) if found else []

    adopted = await ctx.db.write(lambda tx: _adopt_first(tx, ctx, row, candidates)) if candidates else False
    overdue = row.deadline_at is not None and ctx.now() > row.deadline_at
    if adopted:
        ctx.wake(*AFTER_AN_OUTCOME)
    elif overdue and (found is not None or deadlines.is_past(ctx, row.deadline_at or 0)):
        await _give_up_unclear(ctx, row, worker)
    else:
        wait_ms = LOOKS_MS[row.polls] if row.polls < len(LOOKS_MS) else LATER_LOOKS_MS
        if not overdue and row.deadline_at is not None:  # its last look is at its deadline, and no later
            wait_ms = min(wait_ms, row.deadline_at + 1 - ctx.now())
        await leased.postpone(ctx, row, worker, wait_ms, tries=row.polls + 1)


async def _adopt_first(tx: Tx, ctx: Context, row: Generation, candidates: Sequence[Listed]) -> bool:
    """Let the row learn from the first prediction that is its own; return whether there was one."""
    for candidate in candidates:
        if not await _is_of(tx, ctx, row, candidate):
            continue
        outcome = candidate.outcome
        # Files are not stored inside a transaction, which may run twice: the row asks for them by its id.
        bare = inline.without(outcome) if inline.has_files(outcome) else outcome
        told = await outcomes.learn(tx, ctx, row.id, bare)
        if told not in ("another prediction", "unknown"):
            return True
    return False


async def _is_of(tx: Tx, ctx: Context, row: Generation, candidate: Listed) -> bool:
    """Return whether this row's submit made this prediction.

    Our nonce in its webhook URL proves it. Where the list does not show that URL, an equal request in the time of the
    submit is enough, if no generation has it and nobody sends an equal one now. Two equal requests may swap their
    predictions, which changes nothing for anybody; but a row that starts from a picture could get the film of another
    client's picture, so it is never adopted in this way.
    """
    if candidate.webhook is not None:
        return f"/{row.id}/{row.nonce}" in candidate.webhook
    if row.source or not _same_request(ctx, row, candidate):
        return False
    return not await submits.any_submitting(tx, row.model, row.prompt, row.params)


def _sent_between(row: Generation) -> tuple[int, int]:
    """Return the first and the last time at which its create can have reached the provider, by any clock.

    It was sent at the claim. A row that a restore holds may have been sent at any time from the backup to the restore.
    """
    claimed_at = row.claimed_at or row.created_at
    return claimed_at - SKEW_MS, max(claimed_at, row.held_at or 0) + SKEW_MS


def _same_request(ctx: Context, row: Generation, candidate: Listed) -> bool:
    """Return whether all that we sent is in it, except references: their URLs are made anew at every submit."""
    model, provider = ctx.catalog.model(row.provider, row.model), ctx.providers[row.account_key]
    if model is None or provider.listing is None:
        return False  # nobody can say any more what was sent
    inputs = model.build(row.prompt, row.params)
    ours = provider.prepare(Order(row.id, row.model, inputs, None, model.cancel_after_s))
    return provider.listing.is_of(ours, candidate)


async def _give_up_unclear(ctx: Context, row: Generation, worker: str) -> None:
    message = "It is not known whether the provider took it; it may have been charged. It was not sent again."
    await leased.fail(ctx, row, worker, Failure("submit_unknown", message, retryable=True))
