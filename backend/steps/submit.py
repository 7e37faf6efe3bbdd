"""Step 2: send a queued row to its provider, in one request that is never repeated."""

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
)
from backend.core.generation import FAILED, QUEUED, SUBMITTING, UNCLEAR, Failure, Generation
from backend.core.outcomes import Outcome
from backend.db import generations, operations, submits
from backend.db.connection import Tx
from backend.providers.base import Handle, Order, Provider, Request
from backend.steps import deadlines, inline, leased, outcomes, references

log = structlog.get_logger("backend.steps.submit")

FIRST_LOOK_MS = 5_000  # a webhook usually adopts an unclear submit before we look for it
LONGEST_WAIT_S = 60.0  # between two tries while the provider takes nothing: it is noticed soon when it is back
PAUSE_ON_REFUSAL_MS = 60_000  # no credit or bad credentials: the next one would be refused too


async def send(ctx: Context, row: Generation, worker: str) -> None:
    """Submit one claimed row and keep what the provider answered.

    The request is built whole before the row becomes `submitting`: what cannot be built fails without having been sent.
    """
    try:
        provider = ctx.providers[row.account_key]
        request = await _prepare(ctx, row, provider)
        # The row says `submitting` before a byte leaves: after a crash it is looked for, not sent and paid again.
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
    """Return the whole request, after its references were uploaded. Raises InvalidInput, and what an upload raises."""
    if provider.is_internal:
        inputs = {**row.params, "files": await references.names(ctx, row)}
        return provider.prepare(Order(row.id, row.model, inputs, None, deadlines.USUAL_LIMIT_S))
    images: list[str] = []
    end = None
    if row.source:
        _inputs(ctx, row)  # it raises before anything is uploaded for a request that cannot be sent
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
    """Keep the answer to a create. A webhook may have adopted the row already: then the answer says nothing new.

    When the prediction belongs to another row, this create stays as unclear as if there had been no answer.
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
    """Stop a second prediction of the same create: a webhook brought another one first, and that one is kept."""
    log.error("second_prediction", generation_id=row.id, provider_id=outcome.provider_id)
    if cancellation := ctx.providers[row.account_key].cancellation:
        with contextlib.suppress(ProviderUnavailable, ProviderRefused):
            await cancellation.cancel(Handle(outcome.provider_id, outcome.ref or {}))


async def _mark_unclear(ctx: Context, row: Generation, worker: str) -> None:
    due = {"due_at": ctx.now() + FIRST_LOOK_MS, "deadline_at": deadlines.deadline_at(ctx, row), "polls": 0}
    await leased.move(ctx, row, UNCLEAR, worker, **due)


async def _postpone(ctx: Context, row: Generation, worker: str, refusal: ProviderUnavailable) -> None:
    """Put the row back into the queue: nothing was accepted. An account that asks us to wait is paused that long.

    When its file store asked, before the create, the account is not paused: others may need no file of that store.
    """
    wait_s = refusal.retry_after_s
    if row.polls & (row.polls - 1) == 0:  # at tries 1, 2, 4, 8: a provider that is away puts off thousands of rows
        log.warning("submit_put_off", generation_id=row.id, why=refusal.message, tries=row.polls + 1)
    if wait_s is not None and row.status == SUBMITTING:
        until = ctx.now() + int(wait_s * 1000)
        await ctx.db.write(lambda tx: operations.pause(tx, row.account_key, until, refusal.message))
    backoff_s = min(2.0 ** min(row.polls, 6), LONGEST_WAIT_S)
    # The pause keeps it from the account that is throttled, and another one may take it sooner.
    await _requeue(ctx, row, worker, backoff_s if wait_s is None or _has_others(ctx, row) else max(wait_s, 1.0))


def _has_others(ctx: Context, row: Generation) -> bool:
    """Return whether its provider has another account than the one that was asked."""
    return any(one.name == row.provider and key != row.account_key for key, one in ctx.providers.items())


async def _requeue(ctx: Context, row: Generation, worker: str, wait_s: float) -> None:
    """Make it due again after `wait_s` and up to a tenth more: rows that failed together should not come together."""
    wait_ms = int(wait_s * 1000 * random.uniform(1.0, 1.1))
    if row.status == QUEUED:
        await leased.postpone(ctx, row, worker, wait_ms, tries=row.polls + 1)
    else:
        await leased.requeue(ctx, row, worker, due_at=ctx.now() + wait_ms, polls=row.polls + 1)


async def _fail(ctx: Context, row: Generation, worker: str, refusal: ProviderRefused) -> None:
    if refusal.everybody:
        until = ctx.now() + PAUSE_ON_REFUSAL_MS
        await ctx.db.write(lambda tx: operations.pause(tx, row.account_key, until, refusal.message))
    failure = Failure(refusal.code, refusal.message, refusal.retryable)
    await leased.move(ctx, row, FAILED, worker, failure=failure, **billing.judge(row, None, was_refused=True))
