"""Webhook deliveries: what was sent where, what the receivers answered, the same once more, and tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response

from backend.context import Context
from backend.core.people import Caller
from backend.core.requests import Nothing
from backend.core.webhooks import Outgoing
from backend.db.connection import Tx
from backend.db.webhook_lists import DeliveryFilter
from backend.manage import webhook_endpoints
from backend.manage.idempotency import Reply
from backend.steps import browse
from backend.web.api import views, webhook_views
from backend.web.api.paging import Page
from backend.web.api.webhook_views import OutgoingList, OutgoingView
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation

Name = Annotated[str, Field(min_length=1, max_length=64)]


class OutgoingQuery(Page):
    """Filters of the list of deliveries."""

    endpoint_id: Name | None = None
    generation_id: Name | None = None
    status: Literal["pending", "delivered", "failed"] | None = None
    type: Name | None = None


@operation("GET", "/api/v2/webhook-deliveries", query=OutgoingQuery, answers={200: OutgoingList}, tags=["webhooks"])
async def list_webhook_deliveries(call: Call) -> Response:
    """List webhook deliveries with their attempts, newest first."""
    query = call.query
    wanted = DeliveryFilter(call.who.only_client, query.endpoint_id, query.generation_id, query.status, query.type)
    rows, attempts, cursor = await browse.outgoing_page(call.ctx, wanted, query.cursor, query.limit)
    return replies.json_reply(views.page([webhook_views.outgoing(row, attempts[row.id]) for row in rows], cursor))


@operation("GET", "/api/v2/webhook-deliveries/{id}", answers={200: OutgoingView}, tags=["webhooks"])
async def get_webhook_delivery(call: Call) -> Response:
    """Show one webhook delivery with its attempts and the whole of each kept answer."""
    row, attempts = await browse.outgoing(call.ctx, call.who, call.path["id"])
    return replies.json_reply(webhook_views.outgoing(row, attempts))


@operation(
    "POST",
    "/api/v2/webhook-deliveries/{id}/replay",
    body=Nothing,
    answers={202: OutgoingView},
    tags=["webhooks"],
    limit="webhook",
    errors=[409, 507],
)
async def replay_webhook_delivery(call: Call) -> Response:
    """Send the same event once more, now, under the same `webhook-id`."""
    return await _send(call, webhook_endpoints.replay)


@operation(
    "POST",
    "/api/v2/webhook-endpoints/{id}/test",
    body=Nothing,
    answers={202: OutgoingView},
    tags=["webhooks"],
    limit="webhook",
    errors=[409, 507],
)
async def test_webhook_endpoint(call: Call) -> Response:
    """Send a webhook endpoint a signed test of the type `webhook.test`."""
    return await _send(call, webhook_endpoints.test)


async def _send(call: Call, make: Callable[[Tx, Context, Caller, str], Awaitable[Outgoing]]) -> Response:
    """Make a new delivery that somebody asked for: it is due at once."""

    async def work(tx: Tx) -> Reply:
        made = await make(tx, call.ctx, call.who, call.path["id"])
        return Reply(202, webhook_views.outgoing(made, []), f"/api/v2/webhook-deliveries/{made.id}")

    return await replies.once(call, work)
