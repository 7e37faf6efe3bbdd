"""What clients and admins set up: clients, campaigns, keys."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Any

import bcrypt

from backend import quota, tenancy
from backend.context import Context
from backend.db import audit, balances, clients, keys, sources
from backend.db.audit import Subject
from backend.db.connection import Tx
from backend.errors import Conflict, InvalidInput, NotFound
from backend.people import ApiKey, Caller, Campaign, Client
from backend.shown import dollars, time

DEV_CLIENT = "dev"
DEV_CAMPAIGN = "default"
COST = 10  # keys have 256 random bits: the hash only has to survive a leak


@dataclass(frozen=True)
class NewKey:
    """A key that was just made: the only time its text is known."""

    row: ApiKey
    text: str


@dataclass(frozen=True)
class Change:
    """What becomes of a client or a campaign: None leaves its name; the budget changes when `has_budget`."""

    name: str | None = None
    has_budget: bool = False
    budget_micros: int | None = None


async def add_client(tx: Tx, ctx: Context, caller: Caller, name: str, budget_micros: int | None = None) -> Client:
    """A new client; its budget is in millionths of a dollar, None for no limit."""
    made = Client(ctx.new_id(), name, ctx.now(), budget_micros)
    await clients.insert(tx, made)
    await audit.record(tx, caller, "client.created", _client(made), ctx.now(), new=_kept(made))
    return made


async def dev_client(tx: Tx, ctx: Context) -> Client:
    """The client that everything belongs to in dev mode."""
    return await clients.first_named(tx, DEV_CLIENT) or await add_client(tx, ctx, audit.SYSTEM, DEV_CLIENT)


async def dev_campaign(tx: Tx, ctx: Context, caller: Caller, client_id: str) -> Campaign:
    """The campaign of dev mode's requests that name none."""
    return await clients.campaign_named(tx, client_id, DEV_CAMPAIGN) or await _new_campaign(
        tx, ctx, caller, Campaign(ctx.new_id(), client_id, DEV_CAMPAIGN, ctx.now())
    )


async def change_client(tx: Tx, ctx: Context, caller: Caller, id: str, change: Change) -> Client:
    """Another name, another budget, or both. Raises NotFound."""
    old = found = await tenancy.client(tx, caller, id)
    if change.name is not None:
        await clients.rename(tx, id, change.name)
        found = replace(found, name=change.name)
    if change.has_budget:
        await clients.set_budget(tx, id, change.budget_micros)
        await balances.begin_anew(tx, id, None, ctx.now())
        found = replace(found, budget_micros=change.budget_micros)
    await audit.record(tx, caller, "client.updated", _client(old), ctx.now(), old=_kept(old), new=_kept(found))
    return found


async def remove_client(ctx: Context, caller: Caller, id: str) -> None:
    """As `delete_client`, with all of its campaigns, however many there are."""
    await ctx.db.write(lambda tx: delete_client(tx, ctx, caller, id))
    while await ctx.db.write(lambda tx: clients.mark_campaigns_deleted(tx, ctx.now(), clients.BITE)):
        pass  # after a crash here the sweeper goes on


async def delete_client(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """The client, its keys and campaigns are gone at once; rows and bytes follow. Raises NotFound, Conflict."""
    found = await tenancy.client(tx, caller, id)
    if await clients.has_unfinished(tx, id):
        raise Conflict("Something of this client is still being made.", code="unfinished")
    await clients.mark_deleted(tx, id, ctx.now())
    await audit.record(tx, caller, "client.deleted", _client(found), ctx.now(), old=_kept(found))


async def add_campaign(
    tx: Tx, ctx: Context, caller: Caller, name: str, client_id: str | None, budget_micros: int | None = None
) -> Campaign:
    """A new campaign of the caller's client; an admin says whose.

    Raises InvalidInput, NotFound, ClientFull, Conflict.
    """
    owner = await tenancy.owner(tx, caller, client_id)
    await quota.admit(tx, ctx, owner, campaigns=1)
    return await _new_campaign(tx, ctx, caller, Campaign(ctx.new_id(), owner, name, ctx.now(), budget_micros))


async def change_campaign(tx: Tx, ctx: Context, caller: Caller, id: str, change: Change) -> Campaign:
    """Another name, another budget, or both. Raises NotFound."""
    old = found = await tenancy.campaign(tx, caller, id)
    if change.name is not None:
        await clients.rename_campaign(tx, id, change.name)
        found = replace(found, name=change.name)
    if change.has_budget:
        await clients.set_campaign_budget(tx, id, change.budget_micros)
        await balances.begin_anew(tx, found.client_id, id, ctx.now())
        found = replace(found, budget_micros=change.budget_micros)
    await audit.record(tx, caller, "campaign.updated", _campaign(old), ctx.now(), old=_kept(old), new=_kept(found))
    return found


async def delete_campaign(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Gone at once; rows and bytes follow. Raises NotFound, Conflict while something is being made."""
    found = await tenancy.campaign(tx, caller, id)
    if await clients.has_unfinished(tx, found.client_id, id):
        raise Conflict("Something of this campaign is still being made.", code="unfinished")
    if await sources.are_needed(tx, campaign_id=id):
        raise Conflict("Something unfinished of another campaign starts from a file of this one.", code="in_use")
    await clients.mark_campaign_deleted(tx, id, ctx.now())
    await audit.record(tx, caller, "campaign.deleted", _campaign(found), ctx.now(), old=_kept(found))


def make_key(
    ctx: Context,
    name: str,
    client_id: str | None,
    *,
    expires_at: int | None = None,
    image_limit: str | None = None,
    video_limit: str | None = None,
    campaign_id: str | None = None,
) -> NewKey:
    """A key that is not stored yet; takes 60 ms of a core for bcrypt, so call it in a thread. No client: admin.

    `campaign_id` is the campaign of requests that name none.
    """
    text = "sk_" + secrets.token_urlsafe(32)
    digest = bcrypt.hashpw(text.encode(), bcrypt.gensalt(COST)).decode()
    row = ApiKey(
        id=ctx.new_id(),
        client_id=client_id,
        name=name,
        prefix=text[3:15],
        hash=digest,
        admin=client_id is None,
        image_limit=image_limit,
        video_limit=video_limit,
        created_at=ctx.now(),
        expires_at=expires_at,
        revoked_at=None,
        campaign_id=campaign_id,
        fingerprint=fingerprint(text),
    )
    return NewKey(row, text)


def fingerprint(text: str) -> int:
    """What tells most wrong keys from this one and nothing about it: 16 bits of a hash of 256 random ones."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:2])


async def add_key(tx: Tx, ctx: Context, caller: Caller, made: NewKey) -> ApiKey:
    """Store its hash. Raises InvalidInput when there is no such client, or no such campaign of it."""
    client_id, campaign_id = made.row.client_id, made.row.campaign_id
    if client_id is not None and await clients.get(tx, client_id) is None:
        raise InvalidInput.of("client_id", "there is no such client")
    campaign = await clients.get_campaign(tx, campaign_id) if campaign_id is not None else None
    if campaign_id is not None and (campaign is None or client_id not in (None, campaign.client_id)):
        raise InvalidInput.of("campaign_id", "there is no such campaign of this client")
    await keys.insert(tx, made.row)
    await audit.record(tx, caller, "key.created", _key(made.row), ctx.now(), new=_kept_key(made.row))
    return made.row


async def revoke_key(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Not accepted from now on; doing it twice is no error. Raises NotFound."""
    found = await keys.get(tx, id)
    if found is None:
        raise NotFound("There is no such key.", code="key_not_found")
    if await keys.revoke(tx, id, ctx.now()):
        await audit.record(tx, caller, "key.revoked", _key(found), ctx.now(), old=_kept_key(found))


async def _new_campaign(tx: Tx, ctx: Context, caller: Caller, made: Campaign) -> Campaign:
    await clients.insert_campaign(tx, made)
    await audit.record(tx, caller, "campaign.created", _campaign(made), ctx.now(), new=_kept(made))
    return made


def _client(row: Client) -> Subject:
    return Subject("client", row.id, row.id)


def _campaign(row: Campaign) -> Subject:
    return Subject("campaign", row.id, row.client_id)


def _key(row: ApiKey) -> Subject:
    return Subject("key", row.id, row.client_id)


def _kept(row: Client | Campaign) -> dict[str, Any]:
    return {"name": row.name, "budget_usd": dollars(row.budget_micros)}


def _kept_key(row: ApiKey) -> dict[str, Any]:
    """What a key is and may do: its public beginning, and neither the key nor its hash."""
    same = ("name", "admin", "image_limit", "video_limit", "campaign_id")
    shown = {name: getattr(row, name) for name in same}
    return shown | {"prefix": f"sk_{row.prefix}", "expires_at": time(row.expires_at)}
