"""Webhook endpoints that clients set up, their secrets, a test, and the same delivery once more."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from backend.context import Context
from backend.core.errors import Conflict, NotFound
from backend.core.events import Event
from backend.core.people import Caller
from backend.core.webhooks import PENDING, ROTATION_MS, TEST, ClientSecret, Endpoint, Outgoing, new_secret, retiring
from backend.db import audit, holdings, webhook_deliveries, webhook_endpoints, webhook_secrets
from backend.db.audit import Subject
from backend.db.connection import Tx
from backend.db.holdings import Held
from backend.logs import redact
from backend.manage import access, storage_quota, webhook_targets

MOST_ENDPOINTS = 50  # of one client: each gets a row with every event
BY_HAND = "It was disabled by hand."
_TOKEN = re.compile(r"(?<=/)(?=[^/]*[0-9])[A-Za-z0-9._~+=-]{20,}(?=/|$)")  # as chat services put it into the path


async def add(
    tx: Tx, ctx: Context, caller: Caller, url: str, events: tuple[str, ...], client_id: str | None, secret: str
) -> Endpoint:
    """Add an endpoint to the caller's client; an admin says to which. Raises InvalidInput, NotFound, Conflict."""
    owner = await access.owner(tx, caller, client_id)
    webhook_targets.check(ctx, url, "url")
    if await webhook_endpoints.count(tx, owner) >= MOST_ENDPOINTS:
        raise Conflict(f"A client may have {MOST_ENDPOINTS} webhook endpoints.", code="too_many_endpoints")
    await storage_quota.admit(tx, ctx, owner)
    made = Endpoint(ctx.new_id(), owner, url, events, secret, None, None, None, None, None, ctx.now())
    await webhook_endpoints.insert(tx, made)
    await audit.record(tx, caller, "webhook_endpoint.created", _subject(made), ctx.now(), new=_kept(made))
    return made


async def change(
    tx: Tx,
    ctx: Context,
    caller: Caller,
    id: str,
    url: str | None,
    events: tuple[str, ...] | None,
    enabled: bool | None,
) -> Endpoint:
    """Change the address or the events, or switch the endpoint on or off; None leaves a value as it is.

    Deliveries that are pending go to the new address. Raises InvalidInput, NotFound.
    """
    found = await access.endpoint(tx, caller, id)
    webhook_targets.check(ctx, url, "url")
    await webhook_endpoints.change(tx, id, url or found.url, found.events if events is None else events)
    if enabled is True:
        await webhook_endpoints.enable(tx, id)
    elif enabled is False:
        await webhook_endpoints.disable(tx, id, ctx.now(), BY_HAND)
    changed = await access.endpoint(tx, caller, id)
    old, new = _kept(found), _kept(changed) | _hidden_change(found, changed)
    await audit.record(tx, caller, "webhook_endpoint.updated", _subject(found), ctx.now(), old=old, new=new)
    return changed


def _hidden_change(old: Endpoint, new: Endpoint) -> dict[str, str]:
    """Return a note for the audit log when two URLs look the same there, because their secrets are left out."""
    looks_same = _kept(old)["url"] == _kept(new)["url"]
    return {"hidden_part": "another"} if looks_same and old.url != new.url else {}


async def rotate(tx: Tx, ctx: Context, caller: Caller, id: str, secret: str) -> Endpoint:
    """Give the endpoint a new secret. For a day the secrets that sign now sign too. Raises NotFound."""
    found, now = await access.endpoint(tx, caller, id), ctx.now()
    await webhook_endpoints.rotate(tx, id, secret, retiring(found.signing(now)), now + ROTATION_MS)
    await audit.record(tx, caller, "webhook_endpoint.rotated", _subject(found), now)
    return await access.endpoint(tx, caller, id)


async def remove(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Remove the endpoint: nothing more is sent to it, and nobody sees its deliveries any more. Raises NotFound."""
    found = await access.endpoint(tx, caller, id)
    await webhook_endpoints.mark_deleted(tx, id, ctx.now())
    await audit.record(tx, caller, "webhook_endpoint.deleted", _subject(found), ctx.now(), old=_kept(found))


async def test(tx: Tx, ctx: Context, caller: Caller, id: str) -> Outgoing:
    """Send the endpoint an event that is about nothing. Raises NotFound, Conflict when it is disabled."""
    endpoint = await access.endpoint(tx, caller, id)
    _require_enabled(endpoint)
    subject = {"endpoint_id": id, "message": "This is a test."}
    event = Event(ctx.new_id(), None, endpoint.client_id, None, TEST, subject, ctx.now())
    return await _tell(tx, ctx, webhook_deliveries.first(event, id, endpoint.url, id))


async def replay(tx: Tx, ctx: Context, caller: Caller, id: str) -> Outgoing:
    """Send the same event again now, under its own id. Raises NotFound, Conflict when its endpoint is disabled."""
    old = await access.outgoing(tx, caller, id)
    if old.endpoint_id:
        _require_enabled(await access.endpoint(tx, caller, old.endpoint_id))
    now = ctx.now()
    made = replace(old, id=ctx.new_id(), replay_of=old.id, status=PENDING, attempts=0, lease_owner=None)
    return await _tell(tx, ctx, replace(made, created_at=now, due_at=now, finished_at=None))


async def _tell(tx: Tx, ctx: Context, made: Outgoing) -> Outgoing:
    await storage_quota.admit(tx, ctx, made.client_id)
    await webhook_deliveries.insert(tx, made)
    await holdings.add(tx, made.client_id, Held(told=1))
    return made


async def show_secret(
    tx: Tx, ctx: Context, caller: Caller, client_id: str | None
) -> tuple[str, ClientSecret, str | None]:
    """Return the client, the secret that signs for its requests' own `webhook_url`, and its text the first time.

    The secret is made when there is none. Raises InvalidInput when an admin names no client, NotFound.
    """
    owner, now = await access.owner(tx, caller, client_id), ctx.now()
    kept = await webhook_secrets.keep(tx, owner, new_secret(), now)
    if kept is None:
        raise NotFound("There is no such client.", code="client_not_found")
    if not await webhook_secrets.mark_shown(tx, owner, now):
        return owner, kept, None
    await audit.record(tx, caller, "webhook_secret.shown", Subject("webhook_secret", owner, owner), now)
    return owner, kept, kept.secret


async def rotate_secret(
    tx: Tx, ctx: Context, caller: Caller, client_id: str | None, fresh: str
) -> tuple[str, ClientSecret]:
    """Return the client and its new secret, which is to be shown now. For a day those that sign now sign too.

    Raises InvalidInput when an admin names no client, NotFound.
    """
    owner, now = await access.owner(tx, caller, client_id), ctx.now()
    found = await webhook_secrets.get(tx, owner)
    old, until = (retiring(found.signing(now)), now + ROTATION_MS) if found else (None, None)
    await webhook_secrets.rotate(tx, owner, fresh, old, until, now)
    await audit.record(tx, caller, "webhook_secret.rotated", Subject("webhook_secret", owner, owner), now)
    return owner, ClientSecret(fresh, now, now, old, until)


def _subject(endpoint: Endpoint) -> Subject:
    return Subject("webhook_endpoint", endpoint.id, endpoint.client_id)


def _kept(endpoint: Endpoint) -> dict[str, Any]:
    """Return what the audit log keeps of an endpoint: no query and no token of its URL, which are secrets."""
    bare, question, _ = endpoint.url.partition("?")
    shown = _TOKEN.sub("***", redact(bare)) + ("?***" if question else "")
    return {"url": shown, "events": list(endpoint.events), "enabled": endpoint.disabled_at is None}


def _require_enabled(endpoint: Endpoint) -> None:
    if endpoint.disabled_at is not None:
        raise Conflict("The endpoint is disabled: enable it first.", code="endpoint_disabled")
