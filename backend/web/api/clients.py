"""Clients, and their campaigns."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from starlette.responses import Response

from backend.db.connection import Tx
from backend.steps import browse, own
from backend.steps.repeat import Answer
from backend.wanted import Strict
from backend.web import replies, views
from backend.web.api.generations import Page
from backend.web.operation import Call, operation
from backend.web.views import CampaignList, CampaignView, ClientList, ClientView

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class Named(Strict):
    """A name."""

    name: Name


class CampaignBody(Named):
    """A campaign to be made; an admin says whose it is."""

    client_id: Annotated[str, Field(max_length=64)] | None = None


@operation("GET", "/api/v2/clients", query=Page, answers={200: ClientList}, tags=["clients"])
async def list_clients(call: Call) -> Response:
    """List clients, newest first; a client's key sees its own."""
    rows, cursor = await browse.client_page(call.ctx, call.who, call.query.cursor, call.query.limit)
    return replies.json_reply(views.page([views.client(row) for row in rows], cursor))


@operation("POST", "/api/v2/clients", body=Named, answers={201: ClientView}, auth="admin", tags=["clients"])
async def create_client(call: Call) -> Response:
    """Add a client."""

    async def work(tx: Tx) -> Answer:
        row = await own.add_client(tx, call.ctx, call.body.name)
        return Answer(201, views.client(row), f"/api/v2/clients/{row.id}")

    return await replies.once(call, work)


@operation("GET", "/api/v2/clients/{id}", answers={200: ClientView}, tags=["clients"])
async def get_client(call: Call) -> Response:
    """Show one client."""
    return replies.json_reply(views.client(await browse.client(call.ctx, call.who, call.path["id"])))


@operation("PATCH", "/api/v2/clients/{id}", body=Named, answers={200: ClientView}, auth="admin", tags=["clients"])
async def rename_client(call: Call) -> Response:
    """Rename a client."""
    row = await call.ctx.db.write(lambda tx: own.rename_client(tx, call.who, call.path["id"], call.body.name))
    return replies.json_reply(views.client(row))


@operation("DELETE", "/api/v2/clients/{id}", answers={204: None}, auth="admin", tags=["clients"], errors=[409])
async def delete_client(call: Call) -> Response:
    """Remove a client with its keys, campaigns, generations and files."""
    await call.ctx.db.write(lambda tx: own.delete_client(tx, call.ctx, call.who, call.path["id"]))
    return Response(status_code=204)


@operation("GET", "/api/v2/campaigns", query=Page, answers={200: CampaignList}, tags=["campaigns"])
async def list_campaigns(call: Call) -> Response:
    """List campaigns, newest first."""
    rows, cursor = await browse.campaign_page(call.ctx, call.who, call.query.cursor, call.query.limit)
    return replies.json_reply(views.page([views.campaign(row) for row in rows], cursor))


@operation(
    "POST", "/api/v2/campaigns", body=CampaignBody, answers={201: CampaignView}, tags=["campaigns"], errors=[404]
)
async def create_campaign(call: Call) -> Response:
    """Add a campaign."""

    async def work(tx: Tx) -> Answer:
        row = await own.add_campaign(tx, call.ctx, call.who, call.body.name, call.body.client_id)
        return Answer(201, views.campaign(row), f"/api/v2/campaigns/{row.id}")

    return await replies.once(call, work)


@operation("GET", "/api/v2/campaigns/{id}", answers={200: CampaignView}, tags=["campaigns"])
async def get_campaign(call: Call) -> Response:
    """Show one campaign."""
    return replies.json_reply(views.campaign(await browse.campaign(call.ctx, call.who, call.path["id"])))


@operation("PATCH", "/api/v2/campaigns/{id}", body=Named, answers={200: CampaignView}, tags=["campaigns"])
async def rename_campaign(call: Call) -> Response:
    """Rename a campaign."""
    row = await call.ctx.db.write(lambda tx: own.rename_campaign(tx, call.who, call.path["id"], call.body.name))
    return replies.json_reply(views.campaign(row))


@operation("DELETE", "/api/v2/campaigns/{id}", answers={204: None}, tags=["campaigns"], errors=[409])
async def delete_campaign(call: Call) -> Response:
    """Remove a campaign with its generations and files."""
    await call.ctx.db.write(lambda tx: own.delete_campaign(tx, call.ctx, call.who, call.path["id"]))
    return Response(status_code=204)
