"""The stored bytes: by key or by signed link, in ranges, as the type we found them to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from starlette.responses import Response, StreamingResponse

from backend.context import Context
from backend.core import filing
from backend.core.errors import Conflict, NotFound
from backend.core.generation import Generation
from backend.core.people import Caller
from backend.live import links
from backend.steps import browse
from backend.web.api import ranges
from backend.web.calls.inputs import Query
from backend.web.calls.operation import Call, Handler, operation

_ERRORS = (403, 404, 409, 410, 416)


class Signed(Query):
    """A signed link's expiry (seconds since 1970) and signature."""

    exp: str | None = None
    sig: str | None = None


class WhichFile(Signed):
    """One output of several by its place, from 0; without it the first that is stored."""

    file: Annotated[int, Field(ge=0, le=9999)] | None = None


@dataclass(frozen=True)
class File:
    """A stored file and what is said of it; `tag` changes when its bytes do."""

    name: str
    content_type: str
    bytes: int
    tag: str
    shown_as: str


ACTIVE = frozenset({"image/svg+xml"})
ANYONE = Caller("link", None, admin=True)  # a genuine link names one file: who follows it does not matter


def _stored(path: str, *types: str, query: type[Query] = Signed, tag: str = "media") -> Callable[[Handler], Handler]:
    """Make a route of stored bytes: whole as the first of these types, in ranges as the second."""
    answers = dict(zip((200, 206), types, strict=False))
    return operation("GET", path, query=query, answers=answers, auth="media", tags=[tag], errors=_ERRORS)


@_stored("/api/v2/images/{id}/data", "image/*", "image/*", query=WhichFile)
async def image_data(call: Call) -> Response:
    """Give an image's bytes; `file` is one of its files by its index."""
    return await send(call, "image", "data")


@_stored("/api/v2/images/{id}/poster", "image/jpeg")
async def image_poster(call: Call) -> Response:
    """Give a small picture of an image."""
    return await send(call, "image", "poster")


@_stored("/api/v2/videos/{id}/data", "video/*", "video/*", query=WhichFile)
async def video_data(call: Call) -> Response:
    """Give a video's bytes; `file` is one of its files by its index."""
    return await send(call, "video", "data")


@_stored("/api/v2/videos/{id}/poster", "image/jpeg")
async def video_poster(call: Call) -> Response:
    """Give a small picture of a video."""
    return await send(call, "video", "poster")


@_stored("/api/v2/videos/{id}/frame/{which}", "image/jpeg")
async def video_frame(call: Call) -> Response:
    """Give the first or last frame of a video, once it was used as a reference."""
    return await send(call, "video", call.path["which"])


@_stored("/api/v2/assets/{id}/frame/{which}", "image/jpeg", tag="assets")
async def asset_frame(call: Call) -> Response:
    """Give the first or last frame of a video asset, once it was used as a reference."""
    return await send(call, "asset", call.path["which"])


@_stored("/api/v2/assets/{id}/data", "*/*", "*/*", tag="assets")
async def asset_data(call: Call) -> Response:
    """Give an asset's bytes."""
    return await send(call, "asset", "data")


async def send(call: Call, kind: str, variant: str) -> Response:
    """Answer with the bytes of the `id` in the path, whole or in part.

    Raises NotFound, Conflict while there are none, BadRange.
    """
    caller, id = call.caller or ANYONE, call.path["id"]
    if kind == "asset":
        file = await _find_asset(call.ctx, caller, id, variant)
    else:
        file = await _find_generation(call.ctx, caller, id, kind, variant, getattr(call.query, "file", None))
    # Asked before the answer begins: a missing file would break it off in the middle.
    if await call.ctx.store.size(file.name) is None:
        raise NotFound("The file is missing from the storage.", code="file_missing")
    headers = _headers(file)
    if ranges.is_unchanged(call.request, file.tag):
        return Response(status_code=304, headers=headers)
    span = ranges.span(call.request, file.bytes, file.tag)
    start, end = span or (0, file.bytes)
    headers["content-length"] = str(end - start)
    if span:
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.bytes}"
    status = 206 if span else 200
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=file.content_type)
    return StreamingResponse(call.ctx.store.open(file.name, start, end), status, headers, media_type=file.content_type)


async def _find_generation(ctx: Context, caller: Caller, id: str, kind: str, variant: str, index: int | None) -> File:
    row = await browse.generation(ctx, caller, id)
    if row.kind != kind:
        raise NotFound(f"There is no such {kind}.", code=f"{kind}_not_found")
    if row.status != "completed" or not row.file_name or not row.sha256 or not row.content_type:
        raise Conflict(f"The {kind} is {row.shown_status}: it has no bytes.", code="no_bytes")
    if variant == "data":
        return _output(row, index)
    name = row.poster_name if variant == "poster" else filing.frame(id, variant)
    return await _beside(ctx, name, row.sha256, variant)


def _output(row: Generation, index: int | None) -> File:
    one = filing.output(row, index)
    if one is None or not one.file_name or not one.content_type:
        raise NotFound("There is no such file of this generation.", code="file_missing")
    return File(one.file_name, one.content_type, one.bytes or 0, one.sha256 or "", one.file_name)


async def _find_asset(ctx: Context, caller: Caller, id: str, variant: str) -> File:
    row = await browse.asset(ctx, caller, id)
    if variant != "data":
        return await _beside(ctx, filing.frame(id, variant), row.sha256, variant)
    shown_as = f"{id}.{row.file_name.rpartition('.')[2]}"
    return File(row.file_name, row.content_type, row.bytes, row.sha256, shown_as)


async def _beside(ctx: Context, name: str | None, tag: str, variant: str) -> File:
    """Return a picture that was made from the file: a poster or a frame. Raises NotFound."""
    size = await ctx.store.size(name) if name and variant in links.VARIANTS else None
    if name is None or size is None:
        raise NotFound(f"There is no {variant}.")
    return File(name, "image/jpeg", size, f"{tag}-{variant}", name)


def _headers(file: File) -> dict[str, str]:
    """Return headers by which a browser runs nothing, whatever the bytes are, and shows only media."""
    is_media = file.content_type.partition("/")[0] in ("image", "video", "audio") and file.content_type not in ACTIVE
    return {
        "accept-ranges": "bytes",
        "etag": f'"{file.tag}"',
        "cache-control": "private, max-age=31536000, immutable",
        "content-disposition": f'{"inline" if is_media else "attachment"}; filename="{file.shown_as}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "referrer-policy": "no-referrer",
    }
