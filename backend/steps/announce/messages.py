"""A webhook to a client as it is sent: the address, the signed bytes and their headers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook

from backend import __version__
from backend.context import Context
from backend.core.events import Event
from backend.core.webhooks import Outgoing, new_secret
from backend.db import clients, generations, webhook_endpoints, webhook_secrets
from backend.db.connection import Tx
from backend.live import shown


@dataclass(frozen=True)
class Message:
    """What is sent where, and the secrets that sign it."""

    url: str
    body: bytes
    secrets: list[str]


async def write(ctx: Context, delivery: Outgoing) -> Message | None:
    """The message as of now; None when nobody is to have it any more."""

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
    return Message(url, body, secrets or await _first_secret(ctx, delivery.client_id))


async def _first_secret(ctx: Context, client_id: str) -> list[str]:
    """The client's own secret, which was not needed before; nobody was shown it yet."""
    fresh = new_secret()
    kept = await ctx.db.write(lambda tx: webhook_secrets.keep(tx, client_id, fresh, ctx.now()))
    return kept.signing(ctx.now()) if kept else []


def headers(ctx: Context, delivery: Outgoing, message: Message) -> dict[str, str]:
    """Standard Webhooks: the id stays, the time is this attempt's, every secret signs the exact bytes."""
    at = datetime.fromtimestamp(ctx.now() // 1000, UTC)  # the library stamps any other zone wrongly
    signatures = [Webhook(secret).sign(delivery.event_id, at, message.body.decode()) for secret in message.secrets]
    return {
        "content-type": "application/json",
        "user-agent": f"reelhook/{__version__}",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
