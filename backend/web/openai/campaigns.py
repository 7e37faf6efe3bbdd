"""Which campaign a request to /v1 is for."""

from __future__ import annotations

from backend.core.errors import InvalidInput
from backend.core.people import Campaign
from backend.db.connection import Tx
from backend.manage import access, clients
from backend.web.calls.operation import Call

_NONE = (
    "is needed: give it in the body (extra_body={'campaign_id': ...}), in the header X-Campaign-Id, "
    "or use a key that has its own (keys create --campaign ID)"
)


async def of(call: Call, named: str | None) -> Campaign:
    """Return the campaign of the body, or of the header, or of the key. In dev mode one is made when there is none.

    Raises InvalidInput when there is none of them, NotFound.
    """
    id = named or _in_header(call) or call.who.campaign_id
    if id is not None:
        return await call.ctx.db.read(lambda tx: access.campaign(tx, call.who, id))
    if call.site.dev_caller is None or call.who.client_id is None:
        raise InvalidInput.of("campaign_id", _NONE)
    return await _of_dev_mode(call, call.who.client_id)


def _in_header(call: Call) -> str | None:
    given = call.request.headers.getlist("x-campaign-id")
    if len(given) > 1 or any(len(one) > 64 for one in given):
        raise InvalidInput.of("X-Campaign-Id", "Give one id.")
    return given[0] if given and given[0] else None


async def _of_dev_mode(call: Call, client_id: str) -> Campaign:
    async def work(tx: Tx) -> Campaign:
        return await clients.dev_campaign(tx, call.ctx, call.who, client_id)

    return await call.ctx.db.write(work)
