"""videos.create, retrieve, list, delete and download_content."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response

from backend.core.errors import InvalidInput, NotFound
from backend.core.generation import Generation
from backend.core.ids import is_id
from backend.core.people import Caller
from backend.db.connection import Tx
from backend.db.lists import Filters
from backend.manage import access
from backend.steps import browse, change
from backend.web.api import media
from backend.web.calls import replies
from backend.web.calls.inputs import Query
from backend.web.calls.operation import Call, operation
from backend.web.openai import shapes
from backend.web.openai.images import TAG
from backend.web.openai.shapes import DeletedVideo, VideoList, VideoView

POLL_MS = (1_000, 5_000)  # how often create_and_poll asks: the longer it has taken, the less often


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
