"""What an outcome does to a row: the one place where answers, webhooks, polls and lists come together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backend.config import is_public
from backend.context import Context
from backend.core import billing, filing
from backend.core.errors import WrongStatus
from backend.core.generation import (
    CANCELED,
    FAILED,
    IN_FLIGHT,
    PROCESSING,
    SHOWN,
    STORING,
    SUBMITTING,
    UNCLEAR,
    Failure,
    Generation,
)
from backend.core.outcomes import Outcome
from backend.db import bills, generations, operations, submits
from backend.db.connection import Tx
from backend.steps import deadlines

POLL_FIRST_S = {True: 10.0, False: 2.0}  # seconds; by whether a webhook is to be expected
POLL_LONGEST_S = {True: 30.0, False: 10.0}
POLL_GROWTH = 1.4


async def learn(
    tx: Tx, ctx: Context, id: str, outcome: Outcome, *, owner: str | None = None, answered: bool = False
) -> str:
    """Move the row as the outcome says if it is still in flight; return a word or two on what became of it.

    It may be called any number of times, from anywhere and in any order: what is old, or of another prediction, changes
    nothing. With `owner`, the lease of that worker ends too. `answered` means that it is the answer to this row's own
    create, so it need not name the row. It may still name a prediction that another row has.
    """
    told = await _learn(tx, ctx, id, outcome, owner, answered)
    if told != "storing" and (names := filing.inline_names(outcome.outputs)):
        await operations.throw_away(tx, names, ctx.now())
    return told


async def _learn(tx: Tx, ctx: Context, id: str, outcome: Outcome, owner: str | None, answered: bool) -> str:
    generation = await generations.get(tx, id)
    if generation is None:
        return "unknown"
    if generation.provider_id not in (None, outcome.provider_id):
        return "another prediction"
    if generation.provider_id is None and await _is_anothers(tx, generation, outcome, answered):
        return "another prediction"
    if generation.status not in IN_FLIGHT:
        return await _correct_bill(tx, ctx, generation, outcome)
    try:
        return await _apply(tx, ctx, generation, outcome, owner)
    except WrongStatus:
        return "late"  # it was in flight a statement ago: a database with several writers lets others in between


async def _is_anothers(tx: Tx, generation: Generation, outcome: Outcome, answered: bool) -> bool:
    """Return whether the prediction belongs to another row.

    The webhook secret is the whole account's, so a good signature does not tell which row is meant. The nonce in the
    URL that the prediction reports to does, and a prediction that one row has is no other row's.
    """
    if not answered and outcome.webhook is not None and f"/{generation.id}/{generation.nonce}" not in outcome.webhook:
        return True
    return await submits.known_provider_id(tx, generation.account_key, outcome.provider_id)


async def _apply(tx: Tx, ctx: Context, generation: Generation, outcome: Outcome, owner: str | None) -> str:
    now = ctx.now()
    theirs: dict[str, Any] = {"provider_id": outcome.provider_id, "submitted_at": generation.submitted_at or now}
    if outcome.ref:
        theirs["provider_ref"] = dict(outcome.ref)
    if outcome.began and generation.began_at is None:
        theirs["began_at"] = now
    if outcome.state == "running":
        return await _keep_running(tx, ctx, generation, outcome, owner, theirs)
    model = ctx.catalog.model(generation.provider, generation.model)
    if outcome.state == "succeeded" and outcome.outputs:
        theirs["cost_actual_micros"] = billing.billed_micros(generation, model, outcome.predict_s)
        # `polls` counted looks at the provider, and counts tries to fetch the outputs from now on.
        theirs |= {"outputs": list(outcome.outputs), "outputs_expire_at": outcome.outputs_expire_at, "polls": 0}
        # Clients are shown both stages as "processing", and an event says it once.
        told = generation.shown_status == SHOWN[STORING]
        await generations.move(tx, generation.id, STORING, now=now, told=told, **theirs)
        return "storing"
    theirs |= billing.judge(generation, model, outcome.state, began=outcome.began, predict_s=outcome.predict_s)
    failure = outcome.failure or _why_canceled(ctx, generation)
    if failure is None:
        await generations.move(tx, generation.id, CANCELED, now=now, **theirs)
        return "canceled"
    await generations.move(tx, generation.id, FAILED, now=now, failure=failure, **theirs)
    return "failed"


async def _correct_bill(tx: Tx, ctx: Context, generation: Generation, outcome: Outcome) -> str:
    """Judge the bill again by a word that comes after the end: it may tell what was spent, or that nothing was.

    It changes nothing else. A client was told that it failed, and may have asked again.
    """
    ended: billing.Ended | None = None if outcome.state == "running" else outcome.state
    if ended is None and generation.provider_id is not None:
        if generation.status != CANCELED or not outcome.began:
            return "late"  # an old word about a run whose end is known
        ended = "canceled"
    if generation.status not in (FAILED, CANCELED):
        return "late"
    # The provider speaks of it, so it was sent, even when the row went back into the queue and has no claim any more.
    sent = replace(generation, claimed_at=generation.claimed_at or generation.created_at)
    model = ctx.catalog.model(generation.provider, generation.model)
    bill = billing.judge(sent, model, ended, began=outcome.began, predict_s=outcome.predict_s)
    if all(bill[name] == getattr(generation, name) for name in bill):
        return "late"
    began_at = generation.began_at or (ctx.now() if outcome.began else None)
    facts = {"provider_id": outcome.provider_id, "began_at": began_at}
    return "bill corrected" if await bills.correct(tx, generation, ctx.now(), bill, **facts) else "late"


async def _keep_running(
    tx: Tx, ctx: Context, generation: Generation, outcome: Outcome, owner: str | None, theirs: dict[str, Any]
) -> str:
    """Adopt it if we did not know its id, else note its progress. Only the worker that asked sets the next poll."""
    if generation.status in (SUBMITTING, UNCLEAR):
        due_at = ctx.now() if generation.cancel_requested_at else next_poll_at(ctx, replace(generation, polls=0))
        # A restore has set a later deadline for a row that it holds.
        ends_at = max(deadlines.deadline_at(ctx, generation), generation.deadline_at or 0)
        theirs |= {"due_at": due_at, "deadline_at": ends_at, "polls": 0}
        await generations.move(tx, generation.id, PROCESSING, now=ctx.now(), **theirs)
        return "adopted" if generation.status == UNCLEAR else "processing"
    changes: dict[str, Any] = {name: theirs[name] for name in ("began_at",) if name in theirs}
    if outcome.progress is not None:  # words come in any order, and clients see no progress that goes back
        changes["progress"] = max(outcome.progress, generation.progress or 0.0)
    if owner:
        # It was asked for during this very look. A provider that stops nothing is only asked as often as before.
        due_at = ctx.now() if is_to_stop(ctx, generation) else next_poll_at(ctx, generation)
        changes |= {"due_at": due_at, "polls": generation.polls + 1, "attempts": 0}
        changes["lease_owner"] = None
    if changes:
        await generations.note(tx, generation.id, status=PROCESSING, owner=owner, **changes)
    return "running"


def next_poll_at(ctx: Context, generation: Generation) -> int:
    """Return when to ask about it again, in ms: soon at first, then less often; later if a webhook should come."""
    expected = webhook_base(ctx, generation.account_key) is not None
    wait_s = min(POLL_FIRST_S[expected] * POLL_GROWTH**generation.polls, POLL_LONGEST_S[expected])
    return ctx.now() + int(wait_s * 1000)


def is_to_stop(ctx: Context, generation: Generation) -> bool:
    """Return whether its provider is still to be asked to stop it, and can be."""
    provider = ctx.providers.get(generation.account_key)
    can_stop = provider is not None and provider.cancellation is not None
    return can_stop and generation.cancel_requested_at is not None and generation.cancel_sent_at is None


def webhook_base(ctx: Context, account: str) -> str | None:
    """Return the address to which the account's provider can send webhooks, if there is one.

    A loopback address that the operator gave is good enough for a provider on this machine, such as the emulator.
    """
    settings, known = ctx.settings, ctx.providers.get(account)
    if known is None or known.webhooks is None:
        return None
    if is_public(settings.public_url):
        return settings.public_url
    said = settings.base_url or settings.ngrok_url
    return settings.public_url if said and known.is_near else None


def _why_canceled(ctx: Context, generation: Generation) -> Failure | None:
    """Return None when somebody canceled it, a failure when its own deadline did.

    The provider says "canceled" to both. Its clock may differ from ours, hence the twentieth less.
    """
    model = ctx.catalog.model(generation.provider, generation.model)
    limit_ms = (model.cancel_after_s if model else deadlines.USUAL_LIMIT_S) * 950
    if generation.cancel_requested_at or ctx.now() < (generation.claimed_at or 0) + limit_ms:
        return None
    return Failure("timed_out", "The provider did not finish it in time.", retryable=True)
