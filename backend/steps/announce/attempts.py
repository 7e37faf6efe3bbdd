"""What follows from one attempt: the next one, the end, or an endpoint that is disabled."""

from __future__ import annotations

from dataclasses import dataclass

from backend.context import Context
from backend.core.ids import floor_id
from backend.core.webhooks import (
    DELIVERED,
    FAILED,
    LONGEST_LIFE_MS,
    PATIENCE_MS,
    QUIET_MS,
    Attempt,
    Endpoint,
    Outgoing,
    wait_ms,
)
from backend.db import audit, webhook_attempts, webhook_deliveries, webhook_endpoints
from backend.db.audit import Subject
from backend.db.connection import Tx

BITE = 200  # deliveries that one transaction ends: other writers wait for it
GONE = 410


@dataclass(frozen=True)
class Result:
    """What an attempt led to: whether it was the last, and why its endpoint was disabled, if it was."""

    tries: int
    failed: bool = False
    disabled: str | None = None


async def settle(tx: Tx, ctx: Context, delivery: Outgoing, url: str, attempt: Attempt, asked_ms: int) -> Result:
    """Keep an attempt and what follows from it, unless another worker has the delivery by now.

    When the endpoint has got another URL since, what the former URL answers says nothing about the endpoint.
    """
    now = ctx.now()
    endpoint = await webhook_endpoints.get(tx, delivery.endpoint_id) if delivery.endpoint_id else None
    is_former = endpoint is not None and endpoint.url != url
    tries = await webhook_attempts.count(tx, delivery.id) + 1
    later_ms = None if attempt.status_code == GONE and not is_former else wait_ms(tries, asked_ms)
    if not await _put_down(
        tx, delivery, url, attempt, later_ms, now
    ):  # the lease ran out while we waited for the receiver: whoever has it now counts, not this attempt
        return Result(tries)
    disabled = None
    if endpoint and attempt.succeeded:
        await webhook_endpoints.note_success(tx, endpoint.id)
    elif endpoint and not is_former:
        disabled = await _blame(tx, endpoint, attempt, now)
    await webhook_attempts.keep(tx, attempt)
    return Result(tries, later_ms is None and not attempt.succeeded, disabled)


async def _put_down(tx: Tx, delivery: Outgoing, url: str, attempt: Attempt, later_ms: int | None, now: int) -> bool:
    """End the delivery, or make it due again; return False when another worker has it by now."""
    if attempt.succeeded or later_ms is None:
        status = DELIVERED if attempt.succeeded else FAILED
        return await webhook_deliveries.finish(tx, delivery, status, url=url, now=now)
    return await webhook_deliveries.postpone(tx, delivery, url=url, due_at=now + later_ms)


async def _blame(tx: Tx, endpoint: Endpoint, attempt: Attempt, now: int) -> str | None:
    """Disable an endpoint that wants no more, or has failed for too long; return why, None when it stays.

    Its other deliveries fail with it.
    """
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
    """Return whether an attempt was made within the longest wait between two attempts."""
    since = now - QUIET_MS
    return await webhook_attempts.was_tried(tx, endpoint_id, since, floor_id(since - LONGEST_LIFE_MS))
