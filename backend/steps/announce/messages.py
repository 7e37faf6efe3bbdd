"""A webhook to a client as it is sent: the address, the signed bytes and their headers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from standardwebhooks import Webhook

from backend import __version__
from backend.context import Context
from backend.core.events import Event
from backend.core.generation import Generation
from backend.core.webhooks import Outgoing, new_secret
from backend.db import clients, generations, webhook_endpoints, webhook_secrets
from backend.db.connection import Tx
from backend.live import shown


@dataclass(frozen=True)
class Message:
    """What is sent to which address, and the secrets that sign it."""

    url: str
    body: bytes
    secrets: list[str]


async def write(ctx: Context, delivery: Outgoing) -> Message | None:
    """Return the message as of now; None when nobody is to have it any more.

    It is written anew for each attempt: a deleted generation, a new URL and a changed secret count at once.
    """
    found = await ctx.db.read(lambda tx: _look(tx, ctx, delivery))
    if found is None:
        return None
    return found if found.secrets else replace(found, secrets=await _first_secret(ctx, delivery.client_id))


async def _look(tx: Tx, ctx: Context, delivery: Outgoing) -> Message | None:
    row = await generations.get(tx, delivery.generation_id) if delivery.generation_id else None
    gone = delivery.generation_id is not None and row is None
    if gone or await clients.get(tx, delivery.client_id) is None:
        return None
    body = _body(ctx, delivery, row)
    if delivery.endpoint_id is None:
        own = await webhook_secrets.get(tx, delivery.client_id)
        return Message(delivery.url, body, own.signing(ctx.now()) if own else [])
    endpoint = await webhook_endpoints.get(tx, delivery.endpoint_id)
    if endpoint is None or endpoint.disabled_at is not None:
        return None
    return Message(endpoint.url, body, endpoint.signing(ctx.now()))


def _body(ctx: Context, delivery: Outgoing, row: Generation | None) -> bytes:
    """Return the event as JSON; `row` is the generation that it is about."""
    event = Event(
        delivery.event_id,
        delivery.generation_id,
        delivery.client_id,
        None,
        delivery.type,
        delivery.subject,
        delivery.event_at,
    )
    return json.dumps(shown.event(ctx, event, row), ensure_ascii=False, separators=(",", ":")).encode()


async def _first_secret(ctx: Context, client_id: str) -> list[str]:
    """Make the client's own secret, which was not needed before. Of two workers the first one's secret is kept."""
    fresh = new_secret()
    kept = await ctx.db.write(lambda tx: webhook_secrets.keep(tx, client_id, fresh, ctx.now()))
    return kept.signing(ctx.now()) if kept else []


def headers(ctx: Context, delivery: Outgoing, message: Message) -> dict[str, str]:
    """Return the headers of Standard Webhooks: the id stays over all attempts, the time is this attempt's.

    Every secret signs the exact bytes, so a receiver that changes its secret misses nothing.
    """
    at = datetime.fromtimestamp(ctx.now() // 1000, UTC)  # the library drops any other zone instead of converting it
    signatures = [Webhook(secret).sign(delivery.event_id, at, message.body.decode()) for secret in message.secrets]
    return {
        "content-type": "application/json",
        "user-agent": f"reelhook/{__version__}",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
