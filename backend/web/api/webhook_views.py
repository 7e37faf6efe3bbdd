"""Webhook endpoints and what was sent to them as the JSON that clients see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from backend.core.formats import time
from backend.core.webhooks import PENDING, Attempt, ClientSecret, Endpoint, Outgoing
from backend.live.shown import Shown
from backend.live.views import View

SHOWN_ONCE = "It is shown once. POST /api/v2/webhook-secret/rotate gives a new one; for a day both sign."


class EndpointView(View):
    """Where a client is told. `failing_since`: no attempt succeeded since then; `rotating_until`: two secrets sign."""

    id: str
    client_id: str
    url: str
    events: list[str]
    enabled: bool
    disabled_at: str | None
    disabled_reason: str | None
    failing_since: str | None
    rotating_until: str | None
    created_at: str


class NewEndpointView(EndpointView):
    """An endpoint with a new secret: it is shown this once, and null when the request is repeated."""

    secret: str | None


class EndpointList(View):
    """One page, newest first."""

    items: list[EndpointView]
    next_cursor: str | None


class SecretView(View):
    """What signs the webhooks that go to a request's own `webhook_url`.

    `secret` is shown once, and null from then on; `hint` says what to do then. `rotating_until`: older ones sign too.
    """

    client_id: str
    secret: str | None
    hint: str | None
    created_at: str | None
    rotating_until: str | None


class AttemptView(View):
    """One try: the receiver's status and answer, or why there is none."""

    number: int
    began_at: str
    duration_ms: int
    status_code: int | None
    answer: str | None
    error: str | None


class OutgoingView(View):
    """One event for one receiver. Without `endpoint_id` it goes to the generation's own `webhook_url`."""

    id: str
    event_id: str
    type: str
    client_id: str
    generation_id: str | None
    endpoint_id: str | None
    url: str
    status: Literal["pending", "delivered", "failed"]
    replay_of: str | None
    created_at: str
    next_attempt_at: str | None
    finished_at: str | None
    attempts: list[AttemptView]


class OutgoingList(View):
    """One page, newest first; of each answer the first thousand characters."""

    items: list[OutgoingView]
    next_cursor: str | None


def endpoint(row: Endpoint, now: int) -> Shown:
    """Show one endpoint, without its secrets."""
    rotating = row.old_secret is not None and (row.old_secret_until or 0) > now
    return {
        "id": row.id,
        "client_id": row.client_id,
        "url": row.url,
        "events": list(row.events),
        "enabled": row.disabled_at is None,
        "disabled_at": time(row.disabled_at),
        "disabled_reason": row.disabled_reason,
        "failing_since": time(row.failing_since),
        "rotating_until": time(row.old_secret_until) if rotating else None,
        "created_at": time(row.created_at),
    }


def new_endpoint(row: Endpoint, now: int, secret: str | None) -> Shown:
    """Show one endpoint with its new secret, or with none in the answer that is kept."""
    return endpoint(row, now) | {"secret": secret}


def client_secret(client_id: str, kept: ClientSecret, now: int, text: str | None) -> Shown:
    """Show a client's own secret with its text, or with a hint in its place."""
    rotating = kept.old_secret is not None and (kept.old_secret_until or 0) > now
    return {
        "client_id": client_id,
        "secret": text,
        "hint": None if text else SHOWN_ONCE,
        "created_at": time(kept.made_at),
        "rotating_until": time(kept.old_secret_until) if rotating else None,
    }


def outgoing(row: Outgoing, attempts: Sequence[Attempt]) -> Shown:
    """Show one delivery with its attempts. While an attempt runs the time of the next one is not known."""
    waits = row.status == PENDING and row.lease_owner is None
    return {
        "id": row.id,
        "event_id": row.event_id,
        "type": row.type,
        "client_id": row.client_id,
        "generation_id": row.generation_id,
        "endpoint_id": row.endpoint_id,
        "url": row.url,
        "status": row.status,
        "replay_of": row.replay_of,
        "created_at": time(row.created_at),
        "next_attempt_at": time(row.due_at) if waits else None,
        "finished_at": time(row.finished_at),
        "attempts": [_attempt(one) for one in attempts],
    }


def _attempt(one: Attempt) -> Shown:
    same = ("duration_ms", "status_code", "answer", "error")
    return {"number": one.number, "began_at": time(one.began_at), **{name: getattr(one, name) for name in same}}
