"""What clients and admins set up: clients, campaigns, keys."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

import bcrypt

from backend import tenancy
from backend.context import Context
from backend.db import clients, keys, sources
from backend.db.connection import Tx
from backend.errors import Conflict, InvalidInput, NotFound
from backend.model import ApiKey, Caller, Campaign, Client

DEV_CLIENT = "dev"
COST = 10  # keys have 256 random bits: the hash only has to survive a leak


@dataclass(frozen=True)
class NewKey:
    """A key that was just made: the only time its text is known."""

    row: ApiKey
    text: str


async def add_client(tx: Tx, ctx: Context, name: str) -> Client:
    """A new client."""
    made = Client(ctx.new_id(), name, ctx.now())
    await clients.insert(tx, made)
    return made


async def dev_client(tx: Tx, ctx: Context) -> Client:
    """The client that everything belongs to in dev mode."""
    return await clients.first_named(tx, DEV_CLIENT) or await add_client(tx, ctx, DEV_CLIENT)


async def rename_client(tx: Tx, caller: Caller, id: str, name: str) -> Client:
    """Raises NotFound."""
    found = await tenancy.client(tx, caller, id)
    await clients.rename(tx, id, name)
    return replace(found, name=name)


async def delete_client(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """The client, its keys and campaigns are gone at once; rows and bytes follow. Raises NotFound, Conflict."""
    await tenancy.client(tx, caller, id)
    if await clients.has_unfinished(tx, id):
        raise Conflict("Something of this client is still being made.", code="unfinished")
    await clients.mark_deleted(tx, id, ctx.now())


async def add_campaign(tx: Tx, ctx: Context, caller: Caller, name: str, client_id: str | None) -> Campaign:
    """A new campaign of the caller's client; an admin says whose. Raises InvalidInput, NotFound."""
    owner = await tenancy.owner(tx, caller, client_id)
    made = Campaign(ctx.new_id(), owner, name, ctx.now())
    await clients.insert_campaign(tx, made)
    return made


async def rename_campaign(tx: Tx, caller: Caller, id: str, name: str) -> Campaign:
    """Raises NotFound."""
    found = await tenancy.campaign(tx, caller, id)
    await clients.rename_campaign(tx, id, name)
    return replace(found, name=name)


async def delete_campaign(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Gone at once; rows and bytes follow. Raises NotFound, Conflict while something is being made."""
    found = await tenancy.campaign(tx, caller, id)
    if await clients.has_unfinished(tx, found.client_id, id):
        raise Conflict("Something of this campaign is still being made.", code="unfinished")
    if await sources.are_needed(tx, campaign_id=id):
        raise Conflict("Something unfinished of another campaign starts from a file of this one.", code="in_use")
    await clients.mark_campaign_deleted(tx, id, ctx.now())


def make_key(
    ctx: Context,
    name: str,
    client_id: str | None,
    *,
    expires_at: int | None = None,
    image_limit: str | None = None,
    video_limit: str | None = None,
) -> NewKey:
    """A key that is not stored yet; takes 60 ms of a core for bcrypt, so call it in a thread. No client: admin."""
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
    )
    return NewKey(row, text)


async def add_key(tx: Tx, made: NewKey) -> ApiKey:
    """Store its hash. Raises InvalidInput when there is no such client."""
    client_id = made.row.client_id
    if client_id is not None and await clients.get(tx, client_id) is None:
        raise InvalidInput.of("client_id", "there is no such client")
    await keys.insert(tx, made.row)
    return made.row


async def revoke_key(tx: Tx, ctx: Context, id: str) -> None:
    """Not accepted from now on; doing it twice is no error. Raises NotFound."""
    if await keys.get(tx, id) is None:
        raise NotFound("There is no such key.", code="key_not_found")
    await keys.revoke(tx, id, ctx.now())
