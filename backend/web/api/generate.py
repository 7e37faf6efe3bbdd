"""POST /api/v2/generate/image and /video: accepted is kept."""

from __future__ import annotations

import pydantic
from starlette.responses import Response

from backend.core.generation import Kind
from backend.core.requests import ImageRequest, VideoRequest
from backend.db.connection import Tx
from backend.live import shown
from backend.live.views import GenerationView
from backend.manage.idempotency import Reply
from backend.steps import request
from backend.web.api.views import Generations
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation


class Accepted(pydantic.RootModel[GenerationView | Generations]):
    """The generation; with `copies` in the request, an object with `items` instead."""


@operation(
    "POST",
    "/api/v2/generate/image",
    body=ImageRequest,
    answers={202: Accepted},
    tags=["generate"],
    limit="image",
    errors=[402, 404, 507],
)
async def generate_image(call: Call) -> Response:
    """Make an image from a prompt, an asset, an image or a frame of a video."""
    return await _generate(call, "image")


@operation(
    "POST",
    "/api/v2/generate/video",
    body=VideoRequest,
    answers={202: Accepted},
    tags=["generate"],
    limit="video",
    errors=[402, 404, 507],
)
async def generate_video(call: Call) -> Response:
    """Make a video from an image; with a prompt alone its start image is generated first."""
    return await _generate(call, "video")


async def _generate(call: Call, kind: Kind) -> Response:
    ctx = call.ctx
    await request.ensure_room(ctx)

    async def work(tx: Tx) -> Reply:
        rows = await request.accept(tx, ctx, call.who, kind, call.body)
        items = [shown.generation(ctx, row) for row in rows]
        body = items[0] if call.body.copies is None else {"items": items}
        return Reply(202, body, f"/api/v2/generations/{rows[0].id}")

    return await replies.once(call, work)
