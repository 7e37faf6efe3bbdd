"""Webhook endpoints: where a client is told, and the secrets that sign for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response

from backend.core.requests import Id, Nothing, Strict, Url
from backend.core.webhooks import Endpoint, new_secret
from backend.db.connection import Tx
from backend.manage import webhook_endpoints
from backend.manage.idempotency import Reply
from backend.steps import browse
from backend.web.api import views, webhook_views
from backend.web.api.paging import Page
from backend.web.api.webhook_views import EndpointList, EndpointView, NewEndpointView, SecretView
from backend.web.calls import replies
from backend.web.calls.inputs import Query
from backend.web.calls.operation import Call, operation

EventType = Literal[
    "generation.processing", "generation.completed", "generation.failed", "generation.canceled", "budget.warning"
]
Events = Annotated[list[EventType], Field(max_length=20, description="what it is told of; all when there are none")]


class EndpointBody(Strict):
    """An endpoint to be made; an admin says whose it is."""

    url: Url
    events: Events = Field(default_factory=list)
    client_id: Id | None = None


class EndpointChange(Strict):
    """What is to be otherwise. `enabled: true` also forgets what it failed before."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class WhoseSecret(Query):
    """An admin names the client."""

    client_id: Annotated[str, Field(max_length=64)] | None = None


@operation("GET", "/api/v2/webhook-endpoints", query=Page, answers={200: EndpointList}, tags=["webhooks"])
async def list_webhook_endpoints(call: Call) -> Response:
    """List webhook endpoints, newest first, without their secrets."""
    rows, cursor = await browse.endpoint_page(call.ctx, call.who, call.query.cursor, call.query.limit)
    now = call.ctx.now()
    return replies.json_reply(views.page([webhook_views.endpoint(row, now) for row in rows], cursor))


@operation(
    "POST",
    "/api/v2/webhook-endpoints",
    body=EndpointBody,
    answers={201: NewEndpointView},
    tags=["webhooks"],
    errors=[404, 409, 507],
)
async def create_webhook_endpoint(call: Call) -> Response:
    """Add a webhook endpoint; its secret is shown this once."""
    body: EndpointBody = call.body
    events = tuple(dict.fromkeys(body.events))
    return await _with_secret(
        call,
        201,
        lambda tx, secret: webhook_endpoints.add(tx, call.ctx, call.who, body.url, events, body.client_id, secret),
    )


@operation("GET", "/api/v2/webhook-endpoints/{id}", answers={200: EndpointView}, tags=["webhooks"])
async def get_webhook_endpoint(call: Call) -> Response:
    """Show one webhook endpoint, without its secret."""
    row = await browse.endpoint(call.ctx, call.who, call.path["id"])
    return replies.json_reply(webhook_views.endpoint(row, call.ctx.now()))


@operation(
    "PATCH", "/api/v2/webhook-endpoints/{id}", body=EndpointChange, answers={200: EndpointView}, tags=["webhooks"]
)
async def change_webhook_endpoint(call: Call) -> Response:
    """Change a webhook endpoint's address or events, disable it, or enable it again."""
    body: EndpointChange = call.body
    events = None if body.events is None else tuple(dict.fromkeys(body.events))
    row = await call.ctx.db.write(
        lambda tx: webhook_endpoints.change(tx, call.ctx, call.who, call.path["id"], body.url, events, body.enabled)
    )
    return replies.json_reply(webhook_views.endpoint(row, call.ctx.now()))


@operation("DELETE", "/api/v2/webhook-endpoints/{id}", answers={204: None}, tags=["webhooks"])
async def delete_webhook_endpoint(call: Call) -> Response:
    """Remove a webhook endpoint with the log of its deliveries; nothing more is sent to it."""
    await call.ctx.db.write(lambda tx: webhook_endpoints.remove(tx, call.ctx, call.who, call.path["id"]))
    return Response(status_code=204)


@operation(
    "POST",
    "/api/v2/webhook-endpoints/{id}/rotate",
    body=Nothing,
    answers={200: NewEndpointView},
    tags=["webhooks"],
)
async def rotate_webhook_secret(call: Call) -> Response:
    """Give a webhook endpoint a new secret, shown this once; for a day the old one signs too."""
    return await _with_secret(
        call, 200, lambda tx, secret: webhook_endpoints.rotate(tx, call.ctx, call.who, call.path["id"], secret)
    )


@operation(
    "GET",
    "/api/v2/webhook-secret",
    query=WhoseSecret,
    answers={200: SecretView},
    head=False,  # the one time it is shown must not be lost on who asks for no body
    is_write=True,
    tags=["webhooks"],
    errors=[404],
)
async def get_webhook_secret(call: Call) -> Response:
    """Show what signs the webhooks that go to a request's own `webhook_url`: its text the first time alone."""
    client_id, kept, text = await call.ctx.db.write(
        lambda tx: webhook_endpoints.show_secret(tx, call.ctx, call.who, call.query.client_id)
    )
    return replies.json_reply(webhook_views.client_secret(client_id, kept, call.ctx.now(), text))


@operation(
    "POST",
    "/api/v2/webhook-secret/rotate",
    body=Nothing,
    query=WhoseSecret,
    answers={200: SecretView},
    tags=["webhooks"],
    errors=[404],
)
async def rotate_client_secret(call: Call) -> Response:
    """Make a new secret for the webhooks of requests' own `webhook_url`; for a day the old one signs too."""
    fresh = new_secret()

    async def work(tx: Tx) -> Reply:
        client_id, kept = await webhook_endpoints.rotate_secret(tx, call.ctx, call.who, call.query.client_id, fresh)
        return Reply(200, webhook_views.client_secret(client_id, kept, call.ctx.now(), None))

    return await replies.once(call, work, {"secret": fresh, "hint": None})


async def _with_secret(call: Call, status: int, change: Callable[[Tx, str], Awaitable[Endpoint]]) -> Response:
    """Answer with a new secret. The answer that is kept for a repetition is without it."""
    fresh = new_secret()

    async def work(tx: Tx) -> Reply:
        row = await change(tx, fresh)
        shown = webhook_views.new_endpoint(row, call.ctx.now(), None)
        return Reply(status, shown, f"/api/v2/webhook-endpoints/{row.id}" if status == 201 else None)

    return await replies.once(call, work, {"secret": fresh})
