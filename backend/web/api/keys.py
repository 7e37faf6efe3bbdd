"""API keys, for admins."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

from limits import parse_many
from pydantic import Field, field_validator, model_validator
from starlette.responses import Response

from backend.core.requests import Moment, Strict
from backend.db.connection import Tx
from backend.manage import keys
from backend.manage.idempotency import Reply
from backend.steps import browse
from backend.web.api import views
from backend.web.api.clients import Name
from backend.web.api.paging import Page
from backend.web.api.views import KeyList, NewKeyView
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation

LONGEST = timedelta(days=36_500)
MOST = 1_000_000
YEAR_S = 366 * 86_400
Rate = Annotated[str, Field(max_length=40, description="such as 30/minute; the service's own when it is not given")]


class KeyBody(Strict):
    """A key to be made: of one client, or an admin's."""

    name: Name
    client_id: Annotated[str, Field(max_length=64)] | None = None
    admin: bool = False
    image_rate_limit: Rate | None = None
    video_rate_limit: Rate | None = None
    campaign_id: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="of requests to /v1 that name none"
    )
    expires_at: Moment | None = None

    @field_validator("image_rate_limit", "video_rate_limit")
    @classmethod
    def _is_rate(cls, value: str | None) -> str | None:
        limits = parse_many(value) if value is not None else []
        if any(not 0 < limit.amount <= MOST or limit.get_expiry() > YEAR_S for limit in limits):
            raise ValueError("between 1 and 1,000,000 requests in at most a year")
        return value

    @field_validator("expires_at")
    @classmethod
    def _is_ahead(cls, value: datetime | None) -> datetime | None:
        if value is not None and not timedelta(0) < value - datetime.now(UTC) < LONGEST:
            raise ValueError("must be in the future, within a hundred years")
        return value

    @model_validator(mode="after")
    def _one_owner(self) -> KeyBody:
        if self.admin == (self.client_id is not None):
            raise ValueError("give either client_id or admin: true")
        return self


@operation("GET", "/api/v2/keys", query=Page, answers={200: KeyList}, auth="admin", tags=["keys"])
async def list_keys(call: Call) -> Response:
    """List keys, newest first, without their texts."""
    rows, cursor = await browse.key_page(call.ctx, call.query.cursor, call.query.limit)
    return replies.json_reply(views.page([views.key(row) for row in rows], cursor))


@operation("POST", "/api/v2/keys", body=KeyBody, answers={201: NewKeyView}, auth="admin", tags=["keys"])
async def create_key(call: Call) -> Response:
    """Make a key; its text is shown this once and kept nowhere."""
    body: KeyBody = call.body
    expires_at = int(body.expires_at.timestamp() * 1000) if body.expires_at else None
    # bcrypt takes 60 ms of a core: in the loop all other requests would wait for it.
    made = await asyncio.to_thread(
        keys.make,
        call.ctx,
        body.name,
        body.client_id,
        expires_at=expires_at,
        image_limit=body.image_rate_limit,
        video_limit=body.video_rate_limit,
        campaign_id=body.campaign_id,
    )

    async def work(tx: Tx) -> Reply:
        row = await keys.add(tx, call.ctx, call.who, made)
        return Reply(201, views.key(row) | {"key": None})

    return await replies.once(call, work, {"key": made.text})


@operation("DELETE", "/api/v2/keys/{id}", answers={204: None}, auth="admin", tags=["keys"])
async def revoke_key(call: Call) -> Response:
    """Revoke a key: it is not accepted from this moment on."""
    await call.ctx.db.write(lambda tx: keys.revoke(tx, call.ctx, call.who, call.path["id"]))
    return Response(status_code=204)
