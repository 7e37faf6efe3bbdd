"""videos.create: a prompt, and perhaps a picture, as JSON or as a form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from starlette.responses import Response

from backend.core.errors import TooLarge
from backend.core.people import Asset
from backend.core.requests import VideoRequest
from backend.db.connection import Tx
from backend.manage import assets, idempotency, storage_quota
from backend.manage.idempotency import Idempotency, Reply
from backend.steps import request
from backend.web.calls import presence, replies, uploads
from backend.web.calls.multipart import Spooled
from backend.web.calls.operation import Call, operation
from backend.web.openai import asked, campaigns, forms, pictures, repeats, shapes
from backend.web.openai.asked import REFERENCE_BYTES, VideoBody
from backend.web.openai.images import TAG
from backend.web.openai.shapes import VideoView

FORM = "multipart/form-data"
_WHOLE = frozenset({"duration", "seed"})
_FORM = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in VideoBody.model_fields}
    | {"input_reference": {"type": "string", "format": "binary"}, "metadata": {"type": "object"}}
    | {"end_image": {"type": "object"}, "prompt": {"type": "string", "minLength": 1}},
    "required": ["prompt"],
    "additionalProperties": False,
}


@operation(
    "POST",
    "/v1/videos",
    body=VideoBody,
    answers={200: VideoView},
    accepts=[FORM],
    form=_FORM,
    tags=[TAG],
    limit="video",
    cap_bytes=REFERENCE_BYTES,
    errors=[402, 404, 409, 507],
)
async def create_video(call: Call) -> Response:
    """Start a video, from a prompt and perhaps a picture; as JSON or as a form."""
    await request.ensure_room(call.ctx)
    if call.body is not None:
        return await _create(call, call.body, None)
    async with _room(call) as left:
        return await _create_from_form(call, left)


@asynccontextmanager
async def _room(call: Call) -> AsyncIterator[int]:
    """Yield how many bytes a form may bring.

    The form of an admin names its client inside: so no room is reserved before.
    """
    who = call.who.only_client
    most, least = uploads.expected(call.request, assets.asset_bytes(call.ctx))
    async with uploads.of_clients.take(who or call.who.key_id):
        if who is None:
            yield most
            return
        async with storage_quota.reserved(call.ctx, who, most, least=least) as left:
            yield left


async def _create_from_form(call: Call, left: int) -> Response:
    cap_bytes = assets.asset_bytes(call.ctx)
    sizes = {"cap_bytes": min(cap_bytes, left), "text_bytes": REFERENCE_BYTES}
    try:
        async with forms.open_form(call.request, call.ctx.spool, **sizes, file="input_reference") as (values, file):
            return await _create(call, forms.validated(VideoBody, values, _WHOLE), file)
    except TooLarge:
        if left < cap_bytes:
            raise storage_quota.full(call.ctx) from None
        raise


async def _create(call: Call, body: VideoBody, file: Spooled | None) -> Response:
    ctx = call.ctx
    campaign = await campaigns.of(call, body.campaign_id)
    said = body.model_dump_json(exclude_none=True, exclude={"input_reference": {"image_url"}})
    digest = await pictures.digest(body.input_reference, file)
    name = repeats.name_of(call, f"{campaign.id}\n{said}\n{digest}")
    picture = pictures.of(ctx, body.input_reference, file)
    wanted = asked.video(ctx, body, campaign.id, picture.asset_id if picture else None)
    # Before the picture is fetched and inspected: a repetition needs neither.
    if kept := await idempotency.look(ctx, name):
        return _reply(kept)
    if picture is None or picture.bring is None:
        return _reply(await _accept(call, name, wanted, None))
    called, look = file.filename if file else None, partial(presence.wait_for, call.request)
    owner, size = campaign.client_id, picture.bytes or assets.asset_bytes(ctx)
    is_reserved = file is not None and call.who.only_client is not None
    room = storage_quota.reserved(ctx, owner, size, least=picture.bytes or 1)
    async with nullcontext(size) if is_reserved else room as left:
        asset = await assets.take_in(ctx, owner, await picture.bring(owner, left), called, look)
        return _reply(await _accept_with(call, name, wanted.model_copy(update={"asset_id": asset.id}), asset))


async def _accept_with(call: Call, name: Idempotency, wanted: VideoRequest, asset: Asset) -> Reply:
    """Store the picture as an asset in the same transaction; if that fails, remove it."""
    kept = False
    try:
        answer = await _accept(call, name, wanted, asset)
        kept = not answer.replayed
        return answer
    finally:
        if not kept:
            await pictures.leave(call.ctx, asset)


async def _accept(call: Call, name: Idempotency, wanted: VideoRequest, asset: Asset | None) -> Reply:
    ctx = call.ctx

    async def work(tx: Tx) -> Reply:
        if asset is not None:
            await assets.add(tx, asset)
        rows = await request.accept(tx, ctx, call.who, "video", wanted)
        return Reply(200, {"video": shapes.video(ctx.catalog, rows[0]), "by_retry": repeats.is_retry(call)})

    return await idempotency.once(ctx, name, work)


def _reply(answer: Reply) -> Response:
    response = replies.json_reply(answer.body["video"])
    if answer.replayed:
        response.headers["idempotent-replayed"] = "true"
    return response
