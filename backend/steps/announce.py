"""Step 6: clients are told by webhook, at least once, each event under one id."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from standardwebhooks import Webhook

from backend import __version__
from backend.context import Context
from backend.core.errors import NetworkError
from backend.core.events import Event
from backend.core.ids import floor_id
from backend.core.webhooks import (
    DELIVERED,
    FAILED,
    LONGEST_LIFE_MS,
    LONGEST_WAIT_MS,
    PATIENCE_MS,
    QUIET_MS,
    Attempt,
    Endpoint,
    Outgoing,
    kept_answer,
    new_secret,
    retry_after_ms,
    wait_ms,
)
from backend.db import (
    audit,
    clients,
    generations,
    webhook_attempts,
    webhook_claims,
    webhook_deliveries,
    webhook_endpoints,
    webhook_secrets,
)
from backend.db.audit import Subject
from backend.db.connection import Tx
from backend.http import HttpAnswer
from backend.live import shown

TOTAL_S = 15.0  # for one attempt, from the look-up of the name to the last byte that is read
LEASE_MS = 60_000  # longer than any attempt, so that nobody needs to extend it
MOST_CLAIMS = 50  # of one delivery; only ends of the process make so many
BITE = 200
GONE = 410

log = structlog.get_logger("backend.announce")


@dataclass(frozen=True)
class Letter:
    """What is sent where, and the secrets that sign it."""

    url: str
    body: bytes
    secrets: list[str]


async def claim(ctx: Context, worker: str, limit: int) -> list[Outgoing]:
    """Deliveries that are due, under a lease; what nobody listens for any more has failed."""
    now = ctx.now()
    due = await ctx.db.read(lambda tx: webhook_claims.due_targets(tx, now))
    if not due:
        return []

    async def work(tx: Tx) -> list[Outgoing]:
        left = BITE  # the rest in the next turns
        for target in (target for target in due if target.closed):
            left -= await webhook_deliveries.fail_pending(tx, target.name, now, left)
            if left <= 0:
                break
        open = [target for target in due if not target.closed]
        return await webhook_claims.claim_fairly(tx, open, owner=worker, now=now, until=now + LEASE_MS, limit=limit)

    return await ctx.db.write(work)


async def heed_the_clock(ctx: Context) -> int:
    """After a clock was put back nothing waits longer than its schedule says; how many would have."""
    now, pulled = ctx.now(), 0
    while bite := await ctx.db.write(lambda tx: webhook_claims.pull_in(tx, now + LONGEST_WAIT_MS, now)):
        pulled += bite
    return pulled


async def send(ctx: Context, delivery: Outgoing) -> None:
    """One attempt of a delivery that was claimed, and what follows from it."""
    letter = await _write(ctx, delivery)
    if letter is None or delivery.attempts > MOST_CLAIMS:
        why = "nobody listens any more" if letter is None else "it could not be sent, fifty times"
        await _end(ctx, delivery, why)
        return
    attempt, asked_ms = await _try(ctx, delivery, letter)
    end = await ctx.db.write(lambda tx: _settle(tx, ctx, delivery, letter.url, attempt, asked_ms))
    if end.failed:
        why = attempt.error or f"status {attempt.status_code}"
        log.warning("webhook_failed", **_about(delivery), tries=end.tries, why=why)
    if end.disabled:
        names = {"endpoint_id": delivery.endpoint_id, "client_id": delivery.client_id}
        log.warning("endpoint_disabled", **names, why=end.disabled)


async def _try(ctx: Context, delivery: Outgoing, letter: Letter) -> tuple[Attempt, int]:
    """Send it once; what came of it, and for how many milliseconds the receiver asks to be left alone."""
    began_at, clock = ctx.now(), time.monotonic()
    answer: HttpAnswer | None = None
    error = None
    try:
        answer = await ctx.http.send(
            letter.url, content=letter.body, headers=_headers(ctx, delivery, letter), total_s=TOTAL_S
        )
    except NetworkError as failed:  # its message is ours: nothing of what an inner host may have said
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


async def _write(ctx: Context, delivery: Outgoing) -> Letter | None:
    """The letter as of now; None when nobody is to have it any more."""

    async def look(tx: Tx) -> tuple[str, list[str], bytes] | None:
        row = await generations.get(tx, delivery.generation_id) if delivery.generation_id else None
        gone = delivery.generation_id is not None and row is None
        if gone or await clients.get(tx, delivery.client_id) is None:
            return None
        event = Event(
            delivery.event_id,
            delivery.generation_id,
            delivery.client_id,
            None,
            delivery.type,
            delivery.subject,
            delivery.event_at,
        )
        body = json.dumps(shown.event(ctx, event, row), ensure_ascii=False, separators=(",", ":")).encode()
        if delivery.endpoint_id is None:
            own = await webhook_secrets.get(tx, delivery.client_id)
            return delivery.url, own.signing(ctx.now()) if own else [], body
        endpoint = await webhook_endpoints.get(tx, delivery.endpoint_id)
        if endpoint is None or endpoint.disabled_at is not None:
            return None
        return endpoint.url, [*endpoint.signing(ctx.now())], body

    found = await ctx.db.read(look)
    if found is None:
        return None
    url, secrets, body = found
    return Letter(url, body, secrets or await _first_secret(ctx, delivery.client_id))


async def _first_secret(ctx: Context, client_id: str) -> list[str]:
    """The client's own secret, which was not needed before; nobody was shown it yet."""
    fresh = new_secret()
    kept = await ctx.db.write(lambda tx: webhook_secrets.keep(tx, client_id, fresh, ctx.now()))
    return kept.signing(ctx.now()) if kept else []


def _headers(ctx: Context, delivery: Outgoing, letter: Letter) -> dict[str, str]:
    """Standard Webhooks: the id stays, the time is this attempt's, every secret signs the exact bytes."""
    at = datetime.fromtimestamp(ctx.now() // 1000, UTC)  # the library stamps any other zone wrongly
    signatures = [Webhook(secret).sign(delivery.event_id, at, letter.body.decode()) for secret in letter.secrets]
    return {
        "content-type": "application/json",
        "user-agent": f"reelhook/{__version__}",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


@dataclass(frozen=True)
class End:
    """What an attempt led to: whether it was the last, and why its endpoint was disabled, if it was."""

    tries: int
    failed: bool = False
    disabled: str | None = None


async def _settle(tx: Tx, ctx: Context, delivery: Outgoing, url: str, attempt: Attempt, asked_ms: int) -> End:
    """Keep the attempt and what follows from it, unless another worker has the delivery by now.

    What an address says that is not the endpoint's own any more is no word about the endpoint.
    """
    now = ctx.now()
    endpoint = await webhook_endpoints.get(tx, delivery.endpoint_id) if delivery.endpoint_id else None
    is_former = endpoint is not None and endpoint.url != url
    tries = await webhook_attempts.count(tx, delivery.id) + 1
    later_ms = None if attempt.status_code == GONE and not is_former else wait_ms(tries, asked_ms)
    if attempt.succeeded or later_ms is None:
        status = DELIVERED if attempt.succeeded else FAILED
        ours = await webhook_deliveries.finish(tx, delivery, status, url=url, now=now)
    else:
        ours = await webhook_deliveries.postpone(tx, delivery, url=url, due_at=now + later_ms)
    if not ours:
        return End(tries)
    disabled = None
    if endpoint and attempt.succeeded:
        await webhook_endpoints.note_success(tx, endpoint.id)
    elif endpoint and not is_former:
        disabled = await _blame(tx, endpoint, attempt, now)
    await webhook_attempts.keep(tx, attempt)
    return End(tries, later_ms is None and not attempt.succeeded, disabled)


async def _blame(tx: Tx, endpoint: Endpoint, attempt: Attempt, now: int) -> str | None:
    """Disable an endpoint that wants no more, or has failed for too long: why; its other deliveries have failed too."""
    if now - (endpoint.failing_since or now) >= PATIENCE_MS and not await _was_tried_lately(tx, endpoint.id, now):
        await webhook_endpoints.note_success(tx, endpoint.id)  # an old failure and one of today are not five days
    since = await webhook_endpoints.note_failure(tx, endpoint.id, now)
    if attempt.status_code == GONE:
        reason = "It answered 410 Gone."
    elif now - since >= PATIENCE_MS:
        reason = "Every attempt of five days failed."
    else:
        return None
    if not await webhook_endpoints.disable(tx, endpoint.id, now, reason):
        return None
    subject, ended = Subject("webhook_endpoint", endpoint.id, endpoint.client_id), {"enabled": False, "why": reason}
    await audit.record(
        tx, audit.SYSTEM, "webhook_endpoint.updated", subject, now, old={"enabled": True, "why": None}, new=ended
    )
    await webhook_deliveries.fail_pending(tx, endpoint.id, now, BITE)  # the rest as it becomes due
    return reason


async def _was_tried_lately(tx: Tx, endpoint_id: str, now: int) -> bool:
    since = now - QUIET_MS
    return await webhook_attempts.was_tried(tx, endpoint_id, since, floor_id(since - LONGEST_LIFE_MS))


async def _end(ctx: Context, delivery: Outgoing, why: str) -> None:
    """It has failed without an attempt."""
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
