"""OpenAI's objects: the documented shapes, and rows as them."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from backend.core.catalog import Catalog
from backend.core.generation import Failure, Generation
from backend.core.models import Model, shorter_side
from backend.live.shown import Shown

_STATUS = {"pending": "queued", "processing": "in_progress", "completed": "completed", "failed": "failed"}
_CANCELED = Failure("canceled", "The video was canceled.")
_USUAL_SIDE = 720


class ImageObject(pydantic.BaseModel):
    """One image; `id` is the generation's."""

    id: str
    b64_json: str | None = None
    url: str | None = None


class ImagesView(pydantic.BaseModel):
    """The images of one request; fewer than `n` when some failed, more when the model made several at once."""

    created: int
    data: list[ImageObject]
    output_format: str | None = None
    size: str | None = None


class VideoErrorView(pydantic.BaseModel):
    """Why a video failed."""

    code: str
    message: str


class VideoView(pydantic.BaseModel):
    """A video; `size` and `seconds` are the true ones once it is completed. Times are seconds since 1970."""

    id: str
    object: Literal["video"]
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    seconds: str
    size: str
    prompt: str | None
    error: VideoErrorView | None
    remixed_from_video_id: str | None
    campaign_id: str


class VideoList(pydantic.BaseModel):
    """One page; go on with `after=last_id` while `has_more`."""

    object: Literal["list"]
    data: list[VideoView]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedVideo(pydantic.BaseModel):
    """What is left of it."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


class ModelView(pydantic.BaseModel):
    """A model that is offered here."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(pydantic.BaseModel):
    """Every model that is offered here."""

    object: Literal["list"]
    data: list[ModelView]


def video(catalog: Catalog, row: Generation) -> Shown:
    """Return a generation of a video as OpenAI's object."""
    failure = _CANCELED if row.status == "canceled" else row.failure
    completed = row.status == "completed"
    return {
        "id": row.id,
        "object": "video",
        "model": row.model,
        "status": _STATUS.get(row.shown_status, "failed"),
        "progress": 100 if completed else min(int(100 * (row.progress or 0.0)), 99),
        "created_at": row.created_at // 1000,
        "completed_at": row.finished_at // 1000 if row.finished_at is not None else None,
        "expires_at": None,
        "seconds": _seconds(row),
        "size": _size(catalog, row),
        "prompt": row.prompt,
        "error": {"code": failure.code, "message": failure.message} if failure else None,
        "remixed_from_video_id": None,
        "campaign_id": row.campaign_id,
    }


def _seconds(row: Generation) -> str:
    asked = row.params.get("duration")
    return str(asked if asked is not None else round(row.duration_s or 0))


def _size(catalog: Catalog, row: Generation) -> str:
    """Return the size of the file. Before there is one, return the size to expect, or `auto` if its source decides."""
    if row.width and row.height:
        return f"{row.width}x{row.height}"
    across, _, down = str(row.params.get("aspect_ratio", "")).partition(":")
    if not (across.isdigit() and down.isdigit()):
        return "auto"
    scale = _side(catalog, row) / min(int(across), int(down))
    return f"{round(int(across) * scale)}x{round(int(down) * scale)}"


def _side(catalog: Catalog, row: Generation) -> int:
    """Return the shorter side, in pixels, of what the model makes with these params."""
    known = catalog.model(row.provider, row.model)
    for name, implied in known.sizes.items() if known else ():
        if implied.items() <= row.params.items():
            return shorter_side(name) or _USUAL_SIDE
    return _USUAL_SIDE


def videos(catalog: Catalog, rows: list[Generation], go_on: str | None) -> Shown:
    """Return one page. `go_on` is the id after which the next one begins."""
    data: list[Any] = [video(catalog, row) for row in rows]
    last = go_on or (rows[-1].id if rows else None)
    first = rows[0].id if rows else None
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": go_on is not None}


def model(one: Model) -> Shown:
    """Return a model of the catalog. When it was made is not known: 0."""
    return {"id": one.name, "object": "model", "created": 0, "owned_by": one.provider}
