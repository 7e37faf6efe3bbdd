"""What exists for a caller. The things of another client are not found, exactly as things that never were."""

from __future__ import annotations

from backend.core.errors import InvalidInput, NotFound
from backend.core.generation import Generation
from backend.core.people import Asset, Caller, Campaign, Client
from backend.core.webhooks import Endpoint, Outgoing
from backend.db import assets, campaigns, clients, generations, webhook_endpoints, webhook_lists
from backend.db.connection import Tx


async def generation(tx: Tx, caller: Caller, id: str) -> Generation:
    """Return the generation. Raises NotFound, also when its campaign was deleted and its row goes a little later."""
    row = await generations.get(tx, id)
    if row is None or not caller.sees(row.client_id) or await campaigns.get(tx, row.campaign_id) is None:
        raise NotFound("There is no such generation.", code="generation_not_found")
    return row


async def client(tx: Tx, caller: Caller, id: str) -> Client:
    """Return the client. Raises NotFound."""
    # Not found rather than forbidden: "forbidden" would tell that there is such a client.
    row = await clients.get(tx, id)
    if row is None or not caller.sees(id):
        raise NotFound("There is no such client.", code="client_not_found")
    return row


async def campaign(tx: Tx, caller: Caller, id: str) -> Campaign:
    """Return the campaign. Raises NotFound."""
    row = await campaigns.get(tx, id)
    if row is None or not caller.sees(row.client_id):
        raise NotFound("There is no such campaign.", code="campaign_not_found")
    return row


async def asset(tx: Tx, caller: Caller, id: str) -> Asset:
    """Return the asset. Raises NotFound."""
    row = await assets.get(tx, id)
    if row is None or not caller.sees(row.client_id) or await clients.get(tx, row.client_id) is None:
        raise NotFound("There is no such asset.", code="asset_not_found")
    return row


async def endpoint(tx: Tx, caller: Caller, id: str) -> Endpoint:
    """Return the webhook endpoint. Raises NotFound."""
    row = await webhook_endpoints.get(tx, id)
    if row is None or not caller.sees(row.client_id):
        raise NotFound("There is no such webhook endpoint.", code="webhook_endpoint_not_found")
    return row


async def outgoing(tx: Tx, caller: Caller, id: str) -> Outgoing:
    """Return the webhook delivery. Raises NotFound."""
    row = await webhook_lists.get(tx, id)
    if row is None or not caller.sees(row.client_id) or await clients.get(tx, row.client_id) is None:
        raise NotFound("There is no such webhook delivery.", code="webhook_delivery_not_found")
    return row


async def owner(tx: Tx, caller: Caller, client_id: str | None) -> str:
    """Return the client that a new thing will belong to: the caller's, or the one an admin names.

    Raises InvalidInput, NotFound.
    """
    id = client_id or caller.client_id
    if id is None:
        raise InvalidInput.of("client_id", "is needed with an admin key")
    return (await client(tx, caller, id)).id
