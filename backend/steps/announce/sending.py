"""Claim the deliveries that are due, and send them."""

from __future__ import annotations

import time

import structlog

from backend.context import Context
from backend.core.errors import NetworkError
from backend.core.webhooks import FAILED, LONGEST_WAIT_MS, Attempt, Outgoing, kept_answer, retry_after_ms
from backend.db import webhook_claims, webhook_deliveries
from backend.db.connection import Tx
from backend.http import HttpAnswer
from backend.steps.announce.attempts import BITE, settle
from backend.steps.announce.messages import Message, headers, write

TOTAL_S = 15.0  # for one attempt, from the look-up of the name to the last byte that is read
LEASE_MS = 60_000  # longer than any attempt, so that nobody needs to extend it
MOST_CLAIMS = 50  # of one delivery; a receiver cannot cause so many, only a process that dies again and again

log = structlog.get_logger("backend.announce")


async def claim(ctx: Context, worker: str, limit: int) -> list[Outgoing]:
    """Claim deliveries that are due. Those for endpoints that were closed fail now."""
    now = ctx.now()
    # A read first: there is one writer, and a worker without work must not make requests wait for it.
    due = await ctx.db.read(lambda tx: webhook_claims.due_targets(tx, now))
    if not due:
        return []

    async def work(tx: Tx) -> list[Outgoing]:
        await _fail_closed(tx, [target.name for target in due if target.closed], now)
        open = [target for target in due if not target.closed]
        return await webhook_claims.claim_fairly(tx, open, owner=worker, now=now, until=now + LEASE_MS, limit=limit)

    return await ctx.db.write(work)


async def _fail_closed(tx: Tx, names: list[str], now: int) -> None:
    """Fail what waits for endpoints that were closed: a bite of it, the rest in the next turns."""
    left = BITE
    for name in names:
        left -= await webhook_deliveries.fail_pending(tx, name, now, left)
        if left <= 0:
            break


async def heed_the_clock(ctx: Context) -> int:
    """Let no delivery wait longer than its schedule says after a clock was put back; return how many would have."""
    now, pulled = ctx.now(), 0
    while bite := await ctx.db.write(lambda tx: webhook_claims.pull_in(tx, now + LONGEST_WAIT_MS, now)):
        pulled += bite
    return pulled


async def send(ctx: Context, delivery: Outgoing) -> None:
    """Make one attempt of a delivery that was claimed, and keep what follows from it."""
    message = await write(ctx, delivery)
    if message is None or delivery.attempts > MOST_CLAIMS:
        why = "nobody listens any more" if message is None else "it could not be sent, fifty times"
        await _end(ctx, delivery, why)
        return
    attempt, asked_ms = await _try(ctx, delivery, message)
    end = await ctx.db.write(lambda tx: settle(tx, ctx, delivery, message.url, attempt, asked_ms))
    if end.failed:
        why = attempt.error or f"status {attempt.status_code}"
        log.warning("webhook_failed", **_about(delivery), tries=end.tries, why=why)
    if end.disabled:
        names = {"endpoint_id": delivery.endpoint_id, "client_id": delivery.client_id}
        log.warning("endpoint_disabled", **names, why=end.disabled)


async def _try(ctx: Context, delivery: Outgoing, message: Message) -> tuple[Attempt, int]:
    """Send it once; return what came of it, and for how many ms the receiver asks to be left alone."""
    began_at, clock = ctx.now(), time.monotonic()
    answer: HttpAnswer | None = None
    error = None
    try:
        answer = await ctx.http.send(
            message.url, content=message.body, headers=headers(ctx, delivery, message), total_s=TOTAL_S
        )
    except NetworkError as failed:  # the client reads this: its words are ours, and tell nothing of an inner host
        error = failed.message
    attempt = Attempt(
        delivery_id=delivery.id,
        number=delivery.attempts,
        began_at=began_at,
        duration_ms=int((time.monotonic() - clock) * 1000),
        status_code=answer.status if answer else None,
        answer=kept_answer(answer.body) if answer else None,
        error=error,
    )
    told = answer.headers if answer else {}
    return attempt, retry_after_ms(told.get("retry-after"), ctx.now(), told.get("date"))


async def _end(ctx: Context, delivery: Outgoing, why: str) -> None:
    """Fail it without an attempt."""
    now = ctx.now()
    if await ctx.db.write(lambda tx: webhook_deliveries.finish(tx, delivery, FAILED, url=delivery.url, now=now)):
        log.warning("webhook_failed", **_about(delivery), tries=0, why=why)


def _about(delivery: Outgoing) -> dict[str, object]:
    return {
        "delivery_id": delivery.id,
        "endpoint_id": delivery.endpoint_id,
        "client_id": delivery.client_id,
        "generation_id": delivery.generation_id,
    }
