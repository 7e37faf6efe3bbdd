"""Clients, and their campaigns."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator
from starlette.responses import Response

from backend.core.requests import Strict
from backend.db.connection import Tx
from backend.manage import clients
from backend.manage.idempotency import Reply
from backend.steps import browse
from backend.web.api import views
from backend.web.api.paging import Page
from backend.web.api.views import CampaignList, CampaignView, ClientList, ClientView
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


Budget = Annotated[float, Field(ge=0, le=1_000_000_000)]
MEANT = "US dollars that accepted work may cost in all, to millionths; null: no limit"


class ClientBody(Strict):
    """A client to be made."""

    name: Name
    budget_usd: Budget | None = Field(None, description=MEANT)


class CampaignBody(ClientBody):
    """A campaign to be made; an admin says whose it is."""

    client_id: Annotated[str, Field(max_length=64)] | None = None


class ChangeBody(Strict):
    """What is to be another: the name, the budget, or both; what is not given stays."""

    name: Name | None = None
    budget_usd: Budget | None = Field(None, description=MEANT)

    @model_validator(mode="after")
    def _something(self) -> ChangeBody:
        if self.name is None and "budget_usd" not in self.model_fields_set:
            raise ValueError("give name or budget_usd")
        return self

    @property
    def change(self) -> clients.Change:
        """The same in our terms."""
        return clients.Change(self.name, "budget_usd" in self.model_fields_set, _micros(self.budget_usd))


def _micros(usd: float | None) -> int | None:
    return None if usd is None else round(usd * 1_000_000)


@operation("GET", "/api/v2/clients", query=Page, answers={200: ClientList}, tags=["clients"])
async def list_clients(call: Call) -> Response:
    """List clients, newest first; a client's key sees its own."""
    rows, cursor = await browse.client_page(call.ctx, call.who, call.query.cursor, call.query.limit)
    return replies.json_reply(views.page([views.client(row) for row in rows], cursor))


@operation("POST", "/api/v2/clients", body=ClientBody, answers={201: ClientView}, auth="admin", tags=["clients"])
async def create_client(call: Call) -> Response:
    """Add a client."""

    async def work(tx: Tx) -> Reply:
        row = await clients.add_client(tx, call.ctx, call.who, call.body.name, _micros(call.body.budget_usd))
        return Reply(201, views.client(row), f"/api/v2/clients/{row.id}")

    return await replies.once(call, work)


@operation("GET", "/api/v2/clients/{id}", answers={200: ClientView}, tags=["clients"])
async def get_client(call: Call) -> Response:
    """Show one client."""
    return replies.json_reply(views.client(await browse.client(call.ctx, call.who, call.path["id"])))


@operation("PATCH", "/api/v2/clients/{id}", body=ChangeBody, answers={200: ClientView}, auth="admin", tags=["clients"])
async def change_client(call: Call) -> Response:
    """Give a client another name or budget."""
    id, change = call.path["id"], call.body.change
    row = await call.ctx.db.write(lambda tx: clients.change_client(tx, call.ctx, call.who, id, change))
    return replies.json_reply(views.client(row))


@operation("DELETE", "/api/v2/clients/{id}", answers={204: None}, auth="admin", tags=["clients"], errors=[409])
async def delete_client(call: Call) -> Response:
    """Remove a client with its keys, campaigns, generations and files."""
    await clients.remove_client(call.ctx, call.who, call.path["id"])
    return Response(status_code=204)


@operation("GET", "/api/v2/campaigns", query=Page, answers={200: CampaignList}, tags=["campaigns"])
async def list_campaigns(call: Call) -> Response:
    """List campaigns, newest first."""
    rows, cursor = await browse.campaign_page(call.ctx, call.who, call.query.cursor, call.query.limit)
    return replies.json_reply(views.page([views.campaign(row) for row in rows], cursor))


@operation(
    "POST", "/api/v2/campaigns", body=CampaignBody, answers={201: CampaignView}, tags=["campaigns"], errors=[404, 507]
)
async def create_campaign(call: Call) -> Response:
    """Add a campaign."""

    async def work(tx: Tx) -> Reply:
        wanted, budget = call.body, _micros(call.body.budget_usd)
        row = await clients.add_campaign(tx, call.ctx, call.who, wanted.name, wanted.client_id, budget)
        return Reply(201, views.campaign(row), f"/api/v2/campaigns/{row.id}")

    return await replies.once(call, work)


@operation("GET", "/api/v2/campaigns/{id}", answers={200: CampaignView}, tags=["campaigns"])
async def get_campaign(call: Call) -> Response:
    """Show one campaign."""
    return replies.json_reply(views.campaign(await browse.campaign(call.ctx, call.who, call.path["id"])))


@operation("PATCH", "/api/v2/campaigns/{id}", body=ChangeBody, answers={200: CampaignView}, tags=["campaigns"])
async def change_campaign(call: Call) -> Response:
    """Give a campaign another name or budget."""
    id, change = call.path["id"], call.body.change
    row = await call.ctx.db.write(lambda tx: clients.change_campaign(tx, call.ctx, call.who, id, change))
    return replies.json_reply(views.campaign(row))


@operation("DELETE", "/api/v2/campaigns/{id}", answers={204: None}, tags=["campaigns"], errors=[409])
async def delete_campaign(call: Call) -> Response:
    """Remove a campaign with its generations and files."""
    await call.ctx.db.write(lambda tx: clients.delete_campaign(tx, call.ctx, call.who, call.path["id"]))
    return Response(status_code=204)
