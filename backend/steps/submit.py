"""Step 2: a queued row goes to its provider, in one request that is never repeated."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Any

import structlog

from backend.context import AFTER_AN_OUTCOME, Context
from backend.core import billing
from backend.core.errors import (
    InvalidInput,
    ProviderRefused,
    ProviderUnavailable,
    ProviderUnclear,
    StorageFull,
    WrongStatus,
)
from backend.core.generation import CANCELED, FAILED, QUEUED, SUBMITTING, UNCLEAR, Failure, Generation
from backend.core.outcomes import Outcome
from backend.db import generations, operations, submits
from backend.db.connection import Tx
from backend.providers.base import Handle, Order, Provider, Request
from backend.steps import deadlines, inline, leased, outcomes, references

log = structlog.get_logger("backend.steps.submit")

FIRST_LOOK_MS = 5_000  # a webhook usually adopts an unclear submit before we look for it
LONGEST_WAIT_S = 60.0
PAUSE_ON_REFUSAL_MS = 60_000  # no credit or bad credentials: the next one would be refused too


async def send(ctx: Context, row: Generation, worker: str) -> None:
    """Submit one claimed row and keep what the provider answered. It is built whole before it begins."""
    try:
        provider = ctx.providers[row.account_key]
        request = await _prepare(ctx, row, provider)
        begun = row if row.status == SUBMITTING else await _begin(ctx, row, worker)
        if begun is None:
            return  # canceled meanwhile, or another worker has it
        row = begun
        outcome = await provider.create(request)
    except StorageFull:
        await _requeue(ctx, row, worker, LONGEST_WAIT_S)
    except ProviderUnavailable as refusal:
        await _postpone(ctx, row, worker, refusal)
    except ProviderRefused as refusal:
        await _fail(ctx, row, worker, refusal)
    except InvalidInput as wrong:
        await _fail(ctx, row, worker, ProviderRefused(f"It cannot be sent: {wrong.message}"))
    except ProviderUnclear:
        await _mark_unclear(ctx, row, worker)
    else:
        await _keep(ctx, row, outcome)


def _inputs(ctx: Context, row: Generation, images: Sequence[str] = (), end: str | None = None) -> dict[str, Any]:
    return ctx.catalog.build(row.provider, row.model, row.prompt, row.params, images, end)


async def _prepare(ctx: Context, row: Generation, provider: Provider) -> Request:
    """The whole request, its references uploaded. Raises InvalidInput, and what an upload raises."""
    images: list[str] = []
    end = None
    if row.source:
        _inputs(ctx, row)  # before anything is uploaded for it
        images, end = await references.resolve(ctx, row)
    inputs = _inputs(ctx, row, images, end)
    base = outcomes.webhook_base(ctx, provider.key)
    webhook = f"{base}/webhooks/{provider.key}/{row.id}/{row.nonce}" if base else None
    cancel_after_s = ctx.catalog.models[row.provider, row.model].cancel_after_s
    return provider.prepare(Order(row.id, row.model, inputs, webhook, cancel_after_s))


async def _begin(ctx: Context, row: Generation, worker: str) -> Generation | None:
    begun = await ctx.db.write(
        lambda tx: generations.begin(tx, [row.id], account=row.account_key, owner=worker, now=ctx.now())
    )
    return begun[0] if begun else None


async def _keep(ctx: Context, row: Generation, outcome: Outcome) -> None:
    """A webhook may have been faster and adopted it already: then this says nothing new.

    When the prediction is another row's, this one's create is as unclear as if nothing had been answered.
    """

    outcome = await inline.keep(ctx, row.id, outcome)

    async def work(tx: Tx) -> bool:
        told = await outcomes.learn(tx, ctx, row.id, outcome, answered=True)
        if told != "another prediction":
            return False
        return not await submits.known_provider_id(tx, row.account_key, outcome.provider_id)

    is_second = await ctx.db.write(work)
    ctx.wake(*AFTER_AN_OUTCOME)
    if is_second:
        await _stop_second(ctx, row, outcome)


async def _stop_second(ctx: Context, row: Generation, outcome: Outcome) -> None:
    """A webhook has brought another prediction of the same create: the first is kept, this one need not be paid."""
    log.error("second_prediction", generation_id=row.id, provider_id=outcome.provider_id)
    if cancellation := ctx.providers[row.account_key].cancellation:
        with contextlib.suppress(ProviderUnavailable, ProviderRefused):
            await cancellation.cancel(Handle(outcome.provider_id, outcome.ref or {}))


async def _mark_unclear(ctx: Context, row: Generation, worker: str) -> None:
    due = {"due_at": ctx.now() + FIRST_LOOK_MS, "deadline_at": deadlines.deadline_at(ctx, row), "polls": 0}
    await leased.move(ctx, row, UNCLEAR, worker, **due)


async def _postpone(ctx: Context, row: Generation, worker: str, refusal: ProviderUnavailable) -> None:
    """Nothing was accepted: back into the queue; a provider that says how long is left alone that long.

    When it was its file store that said so, before the create, others that need no file of it go on.
    """
    wait_s = refusal.retry_after_s
    if row.polls & (row.polls - 1) == 0:  # ever more seldom: a provider that is away concerns thousands
        log.warning("submit_put_off", generation_id=row.id, why=refusal.message, tries=row.polls + 1)
    if wait_s is not None and row.status == SUBMITTING:
        until = ctx.now() + int(wait_s * 1000)
        await ctx.db.write(lambda tx: operations.pause(tx, row.account_key, until, refusal.message))
    backoff_s = min(2.0 ** min(row.polls, 6), LONGEST_WAIT_S)
    # The pause keeps it from the account that is throttled, and another one may take it sooner.
    await _requeue(ctx, row, worker, backoff_s if wait_s is None or _has_others(ctx, row) else max(wait_s, 1.0))


def _has_others(ctx: Context, row: Generation) -> bool:
    """Whether its provider has another account than the one that was asked."""
    return any(one.name == row.provider and key != row.account_key for key, one in ctx.providers.items())


async def _requeue(ctx: Context, row: Generation, worker: str, wait_s: float) -> None:
    """Due again after about `wait_s`; not all at once, so up to a tenth more."""
    wait_ms = int(wait_s * 1000 * random.uniform(1.0, 1.1))
    if row.status == QUEUED:
        await leased.postpone(ctx, row, worker, wait_ms, tries=row.polls + 1)
    else:
        await _move_back(ctx, row, worker, wait_ms)


async def _move_back(ctx: Context, row: Generation, worker: str, wait_ms: int) -> None:
    """Into the queue; or to its end, when a client asked for that while the provider was being asked."""
    later: dict[str, Any] = {"due_at": ctx.now() + wait_ms, "polls": row.polls + 1, "claimed_at": None, "account": None}

    async def work(tx: Tx) -> None:
        current = await generations.get(tx, row.id)
        canceled = current is not None and current.cancel_requested_at is not None
        free = billing.judge(row, None, was_refused=True)
        to, fields = (CANCELED, free) if canceled else (QUEUED, later)
        await generations.move(tx, row.id, to, now=ctx.now(), owner=worker, **fields)

    with contextlib.suppress(WrongStatus):  # a webhook adopted it: it was taken after all
        await ctx.db.write(work)
    ctx.wake(*AFTER_AN_OUTCOME)


async def _fail(ctx: Context, row: Generation, worker: str, refusal: ProviderRefused) -> None:
    if refusal.everybody:
        until = ctx.now() + PAUSE_ON_REFUSAL_MS
        await ctx.db.write(lambda tx: operations.pause(tx, row.account_key, until, refusal.message))
    failure = Failure(refusal.code, refusal.message, refusal.retryable)
    await leased.move(ctx, row, FAILED, worker, failure=failure, **billing.judge(row, None, was_refused=True))
