"""What clients set up to be told: webhook endpoints, their secrets, a test, and the same delivery once more."""

from __future__ import annotations

from dataclasses import replace

from backend import quota, targets, tenancy
from backend.context import Context
from backend.db import holdings, webhook_deliveries, webhook_endpoints
from backend.db.connection import Tx
from backend.db.holdings import Held
from backend.errors import Conflict, NotFound
from backend.model import Caller, Event
from backend.outbound import MOST_SECRETS, PENDING, ROTATION_MS, TEST, Endpoint, Outgoing, new_secret

MOST_ENDPOINTS = 50  # of one client: each gets a row with every event
BY_HAND = "It was disabled by hand."


async def add(
    tx: Tx, ctx: Context, caller: Caller, url: str, events: tuple[str, ...], client_id: str | None, secret: str
) -> Endpoint:
    """A new endpoint of the caller's client; an admin says whose. Raises InvalidInput, NotFound, Conflict."""
    owner = await tenancy.owner(tx, caller, client_id)
    targets.check(ctx, url, "url")
    if await webhook_endpoints.count(tx, owner) >= MOST_ENDPOINTS:
        raise Conflict(f"A client may have {MOST_ENDPOINTS} webhook endpoints.", code="too_many_endpoints")
    await quota.admit(tx, ctx, owner)
    made = Endpoint(ctx.new_id(), owner, url, events, secret, None, None, None, None, None, ctx.now())
    await webhook_endpoints.insert(tx, made)
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
    """Another address, other events, on or off; None leaves it. What is pending goes to the new address.

    Raises InvalidInput, NotFound.
    """
    found = await tenancy.endpoint(tx, caller, id)
    targets.check(ctx, url, "url")
    await webhook_endpoints.change(tx, id, url or found.url, found.events if events is None else events)
    if enabled is True:
        await webhook_endpoints.enable(tx, id)
    elif enabled is False:
        await webhook_endpoints.disable(tx, id, ctx.now(), BY_HAND)
    return await tenancy.endpoint(tx, caller, id)


async def rotate(tx: Tx, ctx: Context, caller: Caller, id: str, secret: str) -> Endpoint:
    """A new secret; for a day those that sign now do so too. Raises NotFound."""
    found, now = await tenancy.endpoint(tx, caller, id), ctx.now()
    old = " ".join(found.signing(now)[: MOST_SECRETS - 1])
    await webhook_endpoints.rotate(tx, id, secret, old, now + ROTATION_MS)
    return await tenancy.endpoint(tx, caller, id)


async def remove(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Nothing more is sent to it, and its deliveries are gone for everybody. Raises NotFound."""
    await tenancy.endpoint(tx, caller, id)
    await webhook_endpoints.mark_deleted(tx, id, ctx.now())


async def test(tx: Tx, ctx: Context, caller: Caller, id: str) -> Outgoing:
    """Send it something that is about nothing. Raises NotFound, Conflict when it is disabled."""
    endpoint = await tenancy.endpoint(tx, caller, id)
    _require_enabled(endpoint)
    subject = {"endpoint_id": id, "message": "This is a test."}
    event = Event(ctx.new_id(), None, endpoint.client_id, None, TEST, subject, ctx.now())
    return await _tell(tx, ctx, webhook_deliveries.first(event, id, endpoint.url, id))


async def replay(tx: Tx, ctx: Context, caller: Caller, id: str) -> Outgoing:
    """The same event once more, now, under its own id. Raises NotFound, Conflict when its endpoint is disabled."""
    old = await tenancy.outgoing(tx, caller, id)
    if old.endpoint_id:
        _require_enabled(await tenancy.endpoint(tx, caller, old.endpoint_id))
    now = ctx.now()
    made = replace(old, id=ctx.new_id(), replay_of=old.id, status=PENDING, attempts=0, lease_owner=None)
    return await _tell(tx, ctx, replace(made, created_at=now, due_at=now, finished_at=None))


async def _tell(tx: Tx, ctx: Context, made: Outgoing) -> Outgoing:
    await quota.admit(tx, ctx, made.client_id)
    await webhook_deliveries.insert(tx, made)
    await holdings.add(tx, made.client_id, Held(told=1))
    return made


async def secret(tx: Tx, caller: Caller, client_id: str | None) -> tuple[str, str]:
    """The client, and what signs for its requests' own `webhook_url`; made when it is first asked for.

    Raises InvalidInput when an admin names no client, NotFound.
    """
    owner = await tenancy.owner(tx, caller, client_id)
    kept = await webhook_endpoints.keep_client_secret(tx, owner, new_secret())
    if kept is None:
        raise NotFound("There is no such client.", code="client_not_found")
    return owner, kept


def _require_enabled(endpoint: Endpoint) -> None:
    if endpoint.disabled_at is not None:
        raise Conflict("The endpoint is disabled: enable it first.", code="endpoint_disabled")
