"""API keys: made, stored as hashes, and revoked."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import bcrypt

from backend.context import Context
from backend.core.errors import InvalidInput, NotFound
from backend.core.formats import time
from backend.core.people import ApiKey, Caller
from backend.db import audit, campaigns, clients, keys
from backend.db.audit import Subject
from backend.db.connection import Tx

COST = 10  # keys have 256 random bits: the hash only has to survive a leak


@dataclass(frozen=True)
class NewKey:
    """A key that was just made. Only now is its text known."""

    row: ApiKey
    text: str


def make(
    ctx: Context,
    name: str,
    client_id: str | None,
    *,
    expires_at: int | None = None,
    image_limit: str | None = None,
    video_limit: str | None = None,
    campaign_id: str | None = None,
) -> NewKey:
    """Return a key that is not stored yet. Without a client it is an admin's.

    It takes 60 ms of a core for bcrypt, so call it in a thread. `campaign_id` is used for requests that name no
    campaign.
    """
    text = "sk_" + secrets.token_urlsafe(32)
    digest = bcrypt.hashpw(text.encode(), bcrypt.gensalt(COST)).decode()
    row = ApiKey(
        id=ctx.new_id(),
        client_id=client_id,
        name=name,
        prefix=text[3:15],  # finds the row: bcrypt cannot be searched for
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
    """Return 16 bits of a hash of the key. They tell most wrong keys from it, and nothing about the key."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:2])


async def add(tx: Tx, ctx: Context, caller: Caller, made: NewKey) -> ApiKey:
    """Store the hash of a key. Raises InvalidInput when there is no such client, or no such campaign of it."""
    client_id, campaign_id = made.row.client_id, made.row.campaign_id
    if client_id is not None and await clients.get(tx, client_id) is None:
        raise InvalidInput.of("client_id", "there is no such client")
    campaign = await campaigns.get(tx, campaign_id) if campaign_id is not None else None
    if campaign_id is not None and (campaign is None or client_id not in (None, campaign.client_id)):
        raise InvalidInput.of("campaign_id", "there is no such campaign of this client")
    await keys.insert(tx, made.row)
    await audit.record(tx, caller, "key.created", _subject(made.row), ctx.now(), new=_kept(made.row))
    return made.row


async def revoke(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Refuse the key from now on. To do it twice is no error. Raises NotFound."""
    found = await keys.get(tx, id)
    if found is None:
        raise NotFound("There is no such key.", code="key_not_found")
    if await keys.revoke(tx, id, ctx.now()):
        await audit.record(tx, caller, "key.revoked", _subject(found), ctx.now(), old=_kept(found))


def _subject(row: ApiKey) -> Subject:
    return Subject("key", row.id, row.client_id)


def _kept(row: ApiKey) -> dict[str, Any]:
    """Return what the audit log keeps of a key: what it may do and its public beginning, not the key nor its hash."""
    same = ("name", "admin", "image_limit", "video_limit", "campaign_id")
    shown = {name: getattr(row, name) for name in same}
    return shown | {"prefix": f"sk_{row.prefix}", "expires_at": time(row.expires_at)}
