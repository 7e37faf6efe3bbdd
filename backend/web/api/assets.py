"""Assets: files that clients bring."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field
from starlette.responses import Response

from backend.context import Context
from backend.core.errors import TooLarge
from backend.core.people import Asset
from backend.core.requests import Strict, Url
from backend.db.connection import Tx
from backend.manage import access, assets, idempotency, storage_quota
from backend.manage.idempotency import Idempotency, Reply
from backend.steps import browse, request
from backend.web.api import views
from backend.web.api.paging import Page
from backend.web.api.views import AssetList, AssetView
from backend.web.calls import presence, replies, uploads
from backend.web.calls.inputs import Query
from backend.web.calls.operation import Call, operation


class AssetBody(Strict):
    """A file to be fetched."""

    url: Url


class AssetQuery(Query):
    """Whose it will be; only an admin has to say."""

    client_id: Annotated[str, Field(max_length=64)] | None = None


@operation("GET", "/api/v2/assets", query=Page, answers={200: AssetList}, tags=["assets"])
async def list_assets(call: Call) -> Response:
    """List assets, newest first."""
    rows, cursor = await browse.asset_page(call.ctx, call.who, call.query.cursor, call.query.limit)
    return replies.json_reply(views.page([views.asset(call.ctx, row) for row in rows], cursor))


@operation("GET", "/api/v2/assets/{id}", answers={200: AssetView}, tags=["assets"])
async def get_asset(call: Call) -> Response:
    """Show one asset."""
    return replies.json_reply(views.asset(call.ctx, await browse.asset(call.ctx, call.who, call.path["id"])))


@operation("DELETE", "/api/v2/assets/{id}", answers={204: None}, tags=["assets"], errors=[409])
async def delete_asset(call: Call) -> Response:
    """Remove an asset and its file."""
    await call.ctx.db.write(lambda tx: assets.delete(tx, call.ctx, call.who, call.path["id"]))
    return Response(status_code=204)


@operation(
    "POST",
    "/api/v2/assets",
    body=AssetBody,
    query=AssetQuery,
    answers={201: AssetView},
    accepts=["multipart/form-data"],
    tags=["assets"],
    errors=[404, 409, 507],
)
async def create_asset(call: Call) -> Response:
    """Bring a file: as multipart `file`, or JSON with the `url` it is fetched from."""
    await request.ensure_room(call.ctx)
    owner = await call.ctx.db.read(lambda tx: access.owner(tx, call.who, call.query.client_id))
    cap_bytes = assets.asset_bytes(call.ctx)
    if call.body is not None:
        async with storage_quota.reserved(call.ctx, owner, cap_bytes) as left:
            url = call.body.url
            return await _keep(call, owner, replies.name_of(call), lambda: assets.fetch(call.ctx, owner, url, left))
    most, least = uploads.expected(call.request, cap_bytes)
    async with uploads.of_clients.take(owner), storage_quota.reserved(call.ctx, owner, most, least=least) as left:
        return await _take_upload(call, owner, cap_bytes, left)


async def _take_upload(call: Call, owner: str, cap_bytes: int, left: int) -> Response:
    """Store the upload if it fits into the room that is left. Raises ClientFull, and as `open_file`."""
    try:
        async with uploads.open_file(call.request, call.ctx.spool, cap_bytes=min(cap_bytes, left)) as file:
            name = replies.name_of(call, f"{file.filename}\n{file.sha256}")
            return await _keep(call, owner, name, lambda: _ready(file.path), file.filename)
    except TooLarge:
        if left < cap_bytes:
            raise storage_quota.full(call.ctx) from None
        raise


async def _keep(
    call: Call, owner: str, name: Idempotency | None, bring_it: Callable[[], Awaitable[Path]], called: str | None = None
) -> Response:
    """Take the file in, under an Idempotency-Key that is reserved first and freed on failure.

    The work is longer than a transaction may be.
    """
    ctx = call.ctx
    if kept := await idempotency.begin(ctx, name):
        return replies.reply(kept)
    try:
        asset = await assets.take_in(ctx, owner, await bring_it(), called, partial(presence.wait_for, call.request))
        return replies.reply(await _add(ctx, name, asset))
    except BaseException:
        # Also when the sender left: else its next try would be told for ten minutes that the first still runs.
        await asyncio.shield(idempotency.abandon(ctx, name))
        raise


async def _add(ctx: Context, name: Idempotency | None, asset: Asset) -> Reply:
    async def work(tx: Tx) -> Reply:
        await assets.add(tx, asset)
        return Reply(201, views.asset(ctx, asset), f"/api/v2/assets/{asset.id}")

    try:
        return await idempotency.finish(ctx, name, work)
    except BaseException:
        await asyncio.shield(assets.leave(ctx, asset))
        raise


async def _ready(spooled: Path) -> Path:
    return spooled
