"""What exists for a caller: another client's things are not there, exactly as things that never were."""

from __future__ import annotations

from backend.core.errors import InvalidInput, NotFound
from backend.core.generation import Generation
from backend.core.people import Asset, Caller, Campaign, Client
from backend.core.webhooks import Endpoint, Outgoing
from backend.db import assets, campaigns, clients, generations, webhook_endpoints, webhook_lists
from backend.db.connection import Tx


async def generation(tx: Tx, caller: Caller, id: str) -> Generation:
    """Raises NotFound; so it does for one whose campaign was deleted, though its row goes a little later."""
    row = await generations.get(tx, id)
    if row is None or not caller.sees(row.client_id) or await campaigns.get(tx, row.campaign_id) is None:
        raise NotFound("There is no such generation.", code="generation_not_found")
    return row


async def client(tx: Tx, caller: Caller, id: str) -> Client:
    """Raises NotFound."""
    row = await clients.get(tx, id)
    if row is None or not caller.sees(id):
        raise NotFound("There is no such client.", code="client_not_found")
    return row


async def campaign(tx: Tx, caller: Caller, id: str) -> Campaign:
    """Raises NotFound."""
    row = await campaigns.get(tx, id)
    if row is None or not caller.sees(row.client_id):
        raise NotFound("There is no such campaign.", code="campaign_not_found")
    return row


async def asset(tx: Tx, caller: Caller, id: str) -> Asset:
    """Raises NotFound."""
    row = await assets.get(tx, id)
    if row is None or not caller.sees(row.client_id) or await clients.get(tx, row.client_id) is None:
        raise NotFound("There is no such asset.", code="asset_not_found")
    return row


async def endpoint(tx: Tx, caller: Caller, id: str) -> Endpoint:
    """Raises NotFound."""
    row = await webhook_endpoints.get(tx, id)
    if row is None or not caller.sees(row.client_id):
        raise NotFound("There is no such webhook endpoint.", code="webhook_endpoint_not_found")
    return row


async def outgoing(tx: Tx, caller: Caller, id: str) -> Outgoing:
    """A webhook delivery. Raises NotFound."""
    row = await webhook_lists.get(tx, id)
    if row is None or not caller.sees(row.client_id) or await clients.get(tx, row.client_id) is None:
        raise NotFound("There is no such webhook delivery.", code="webhook_delivery_not_found")
    return row


async def owner(tx: Tx, caller: Caller, client_id: str | None) -> str:
    """Whose a new thing will be: the caller's client, or the one an admin names. Raises InvalidInput, NotFound."""
    id = client_id or caller.client_id
    if id is None:
        raise InvalidInput.of("client_id", "is needed with an admin key")
    return (await client(tx, caller, id)).id
