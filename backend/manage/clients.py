"""Clients and their campaigns: made, changed and deleted. Each change writes its line of the audit log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from backend.context import Context
from backend.core.errors import Conflict
from backend.core.formats import dollars
from backend.core.people import Caller, Campaign, Client
from backend.db import audit, balances, campaigns, clients, sources
from backend.db.audit import Subject
from backend.db.connection import Tx
from backend.manage import access, storage_quota

DEV_CLIENT = "dev"
DEV_CAMPAIGN = "default"
Row = TypeVar("Row", Client, Campaign)


@dataclass(frozen=True)
class Change:
    """How a client or a campaign changes. A name of None stays as it is; the budget changes only with `has_budget`."""

    name: str | None = None
    has_budget: bool = False
    budget_micros: int | None = None

    def of(self, row: Row) -> Row:
        """Return the row as it is after the change."""
        renamed = row if self.name is None else replace(row, name=self.name)
        return replace(renamed, budget_micros=self.budget_micros) if self.has_budget else renamed


async def add_client(tx: Tx, ctx: Context, caller: Caller, name: str, budget_micros: int | None = None) -> Client:
    """Add a client. Its budget is in millionths of a dollar, None for no limit."""
    made = Client(ctx.new_id(), name, ctx.now(), budget_micros)
    await clients.insert(tx, made)
    await audit.record(tx, caller, "client.created", _client(made), ctx.now(), new=_kept(made))
    return made


async def dev_client(tx: Tx, ctx: Context) -> Client:
    """Return the client that everything belongs to in dev mode; it is made when there is none."""
    return await clients.first_named(tx, DEV_CLIENT) or await add_client(tx, ctx, audit.SYSTEM, DEV_CLIENT)


async def dev_campaign(tx: Tx, ctx: Context, caller: Caller, client_id: str) -> Campaign:
    """Return the campaign for requests of dev mode that name none; it is made when there is none."""
    return await campaigns.first_named(tx, client_id, DEV_CAMPAIGN) or await _new_campaign(
        tx, ctx, caller, Campaign(ctx.new_id(), client_id, DEV_CAMPAIGN, ctx.now())
    )


async def change_client(tx: Tx, ctx: Context, caller: Caller, id: str, change: Change) -> Client:
    """Give it another name, another budget, or both. Raises NotFound."""
    old = await access.client(tx, caller, id)
    new = await _change(tx, ctx, change, old)
    await audit.record(tx, caller, "client.updated", _client(old), ctx.now(), old=_kept(old), new=_kept(new))
    return new


async def remove_client(ctx: Context, caller: Caller, id: str) -> None:
    """Delete a client as `delete_client` does, and mark all of its campaigns, however many there are."""
    await ctx.db.write(lambda tx: delete_client(tx, ctx, caller, id))
    while await ctx.db.write(lambda tx: campaigns.mark_deleted_of_clients(tx, ctx.now(), clients.BITE)):
        pass  # after a crash here the sweeper goes on


async def delete_client(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Hide the client, its keys and campaigns at once; rows and bytes follow. Raises NotFound, Conflict."""
    found = await access.client(tx, caller, id)
    if await clients.has_unfinished(tx, id):
        raise Conflict("Something of this client is still being made.", code="unfinished")
    await clients.mark_deleted(tx, id, ctx.now())
    await audit.record(tx, caller, "client.deleted", _client(found), ctx.now(), old=_kept(found))


async def add_campaign(
    tx: Tx, ctx: Context, caller: Caller, name: str, client_id: str | None, budget_micros: int | None = None
) -> Campaign:
    """Add a campaign to the caller's client; an admin says to which.

    Raises InvalidInput, NotFound, ClientFull, Conflict.
    """
    owner = await access.owner(tx, caller, client_id)
    await storage_quota.admit(tx, ctx, owner, campaigns=1)
    return await _new_campaign(tx, ctx, caller, Campaign(ctx.new_id(), owner, name, ctx.now(), budget_micros))


async def change_campaign(tx: Tx, ctx: Context, caller: Caller, id: str, change: Change) -> Campaign:
    """Give it another name, another budget, or both. Raises NotFound."""
    old = await access.campaign(tx, caller, id)
    new = await _change(tx, ctx, change, old)
    await audit.record(tx, caller, "campaign.updated", _campaign(old), ctx.now(), old=_kept(old), new=_kept(new))
    return new


async def delete_campaign(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Hide a campaign at once; rows and bytes follow. Raises NotFound, Conflict while something is being made."""
    found = await access.campaign(tx, caller, id)
    if await clients.has_unfinished(tx, found.client_id, id):
        raise Conflict("Something of this campaign is still being made.", code="unfinished")
    if await sources.are_needed(tx, campaign_id=id):
        raise Conflict("Something unfinished of another campaign starts from a file of this one.", code="in_use")
    await campaigns.mark_deleted(tx, id, ctx.now())
    await audit.record(tx, caller, "campaign.deleted", _campaign(found), ctx.now(), old=_kept(found))


async def _change(tx: Tx, ctx: Context, change: Change, row: Row) -> Row:
    if isinstance(row, Client):
        rename, set_budget, owner = clients.rename, clients.set_budget, (row.id, None)
    else:
        rename, set_budget, owner = campaigns.rename, campaigns.set_budget, (row.client_id, row.id)
    if change.name is not None:
        await rename(tx, row.id, change.name)
    if change.has_budget:
        await set_budget(tx, row.id, change.budget_micros)
        # The warnings of a budget are told once for each budget.
        await balances.begin_anew(tx, *owner, ctx.now())
    return change.of(row)


async def _new_campaign(tx: Tx, ctx: Context, caller: Caller, made: Campaign) -> Campaign:
    await campaigns.insert(tx, made)
    await audit.record(tx, caller, "campaign.created", _campaign(made), ctx.now(), new=_kept(made))
    return made


def _client(row: Client) -> Subject:
    return Subject("client", row.id, row.id)


def _campaign(row: Campaign) -> Subject:
    return Subject("campaign", row.id, row.client_id)


def _kept(row: Client | Campaign) -> dict[str, Any]:
    return {"name": row.name, "budget_usd": dollars(row.budget_micros)}
