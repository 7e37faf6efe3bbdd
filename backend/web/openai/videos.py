"""videos.create, retrieve, list, delete and download_content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response

from backend.core.errors import InvalidInput, NotFound, TooLarge
from backend.core.generation import Generation
from backend.core.ids import is_id
from backend.core.people import Asset, Caller
from backend.core.requests import VideoRequest
from backend.db.connection import Tx
from backend.db.lists import Filters
from backend.manage import access, assets, idempotency, quota
from backend.manage.idempotency import Idempotency, Reply
from backend.steps import browse, change, request
from backend.web.api import media
from backend.web.calls import presence, replies, uploads
from backend.web.calls.inputs import Query
from backend.web.calls.multipart import Spooled
from backend.web.calls.operation import Call, operation
from backend.web.openai import asked, campaigns, forms, pictures, repeats, shapes
from backend.web.openai.asked import REFERENCE_BYTES, VideoBody
from backend.web.openai.images import TAG
from backend.web.openai.shapes import DeletedVideo, VideoList, VideoView

FORM = "multipart/form-data"
POLL_MS = (1_000, 5_000)  # how often create_and_poll asks: the longer it has taken, the less often
_WHOLE = frozenset({"duration", "seed"})
_FORM = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in VideoBody.model_fields}
    | {"input_reference": {"type": "string", "format": "binary"}, "metadata": {"type": "object"}}
    | {"end_image": {"type": "object"}, "prompt": {"type": "string", "minLength": 1}},
    "required": ["prompt"],
    "additionalProperties": False,
}


class Page(Query):
    """Where the list goes on, how much of it is wanted, and in which order."""

    after: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="the id of a video", json_schema_extra={"format": "uuid"}
    )
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"


class Variant(Query):
    """Which file is wanted."""

    variant: Literal["video", "thumbnail"] = "video"


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
    """Room for what a form may bring; an admin's form says in itself whose it is."""
    who = call.who.only_client
    most, least = uploads.expected(call.request, assets.asset_bytes(call.ctx))
    async with uploads.of_clients.take(who or call.who.key_id):
        if who is None:
            yield most
            return
        async with quota.reserved(call.ctx, who, most, least=least) as left:
            yield left


async def _create_from_form(call: Call, left: int) -> Response:
    cap_bytes = assets.asset_bytes(call.ctx)
    sizes = {"cap_bytes": min(cap_bytes, left), "text_bytes": REFERENCE_BYTES}
    try:
        async with forms.open_form(call.request, call.ctx.spool, **sizes, file="input_reference") as (values, file):
            return await _create(call, forms.validated(VideoBody, values, _WHOLE), file)
    except TooLarge:
        if left < cap_bytes:
            raise quota.full(call.ctx) from None
        raise


async def _create(call: Call, body: VideoBody, file: Spooled | None) -> Response:
    ctx = call.ctx
    campaign = await campaigns.of(call, body.campaign_id)
    said = body.model_dump_json(exclude_none=True, exclude={"input_reference": {"image_url"}})
    digest = await pictures.digest(body.input_reference, file)
    name = repeats.name_of(call, f"{campaign.id}\n{said}\n{digest}")
    picture = pictures.of(ctx, body.input_reference, file)
    wanted = asked.video(ctx, body, campaign.id, picture.asset_id if picture else None)
    if kept := await idempotency.look(ctx, name):
        return _reply(kept)
    if picture is None or picture.bring is None:
        return _reply(await _accept(call, name, wanted, None))
    called, look = file.filename if file else None, partial(presence.wait_for, call.request)
    owner, size = campaign.client_id, picture.bytes or assets.asset_bytes(ctx)
    is_reserved = file is not None and call.who.only_client is not None
    room = quota.reserved(ctx, owner, size, least=picture.bytes or 1)
    async with nullcontext(size) if is_reserved else room as left:
        asset = await assets.take_in(ctx, owner, await picture.bring(owner, left), called, look)
        return _reply(await _accept_with(call, name, wanted.model_copy(update={"asset_id": asset.id}), asset))


async def _accept_with(call: Call, name: Idempotency, wanted: VideoRequest, asset: Asset) -> Reply:
    """The picture becomes an asset in the same transaction, or goes again."""
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


@operation("GET", "/v1/videos", query=Page, answers={200: VideoList}, tags=[TAG])
async def list_videos(call: Call) -> Response:
    """List videos, newest first unless said otherwise."""
    page: Page = call.query
    if page.after is not None and not is_id(page.after):
        raise InvalidInput.of("after", "is not the id of a video")
    filters = Filters(kind="video", client_id=call.who.only_client)
    found = browse.generations_from(call.ctx, filters, page.after, page.limit, oldest_first=page.order == "asc")
    return replies.json_reply(shapes.videos(call.ctx.catalog, *await found))


@operation("GET", "/v1/videos/{id}", answers={200: VideoView}, tags=[TAG])
async def retrieve_video(call: Call) -> Response:
    """Show one video; `openai-poll-after-ms` says when to ask again."""
    row = await call.ctx.db.read(lambda tx: _video(tx, call.who, call.path["id"]))
    response = replies.json_reply(shapes.video(call.ctx.catalog, row))
    least, most = POLL_MS
    response.headers["openai-poll-after-ms"] = str(min(max((call.ctx.now() - row.created_at) // 10, least), most))
    return response


@operation("DELETE", "/v1/videos/{id}", answers={200: DeletedVideo}, tags=[TAG], errors=[409])
async def remove_video(call: Call) -> Response:
    """Remove a finished video and its files; 409 while it is unfinished or needed."""
    ctx, id = call.ctx, call.path["id"]
    await change.remove(ctx, call.who, id, "video")
    ctx.wake()
    return replies.json_reply({"id": id, "object": "video.deleted", "deleted": True})


@operation(
    "GET",
    "/v1/videos/{id}/content",
    query=Variant,
    answers={200: "*/*", 206: "*/*"},
    tags=[TAG],
    errors=[409, 416],
)
async def download_video(call: Call) -> Response:
    """Give a video's bytes, or with `variant=thumbnail` those of its poster."""
    variant: Variant = call.query
    return await media.send(call, "video", "data" if variant.variant == "video" else "poster")


async def _video(tx: Tx, caller: Caller, id: str) -> Generation:
    row = await access.generation(tx, caller, id)
    if row.kind != "video":
        raise NotFound("There is no such video.", code="video_not_found")
    return row
