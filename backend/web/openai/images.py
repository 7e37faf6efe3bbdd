"""images.generate: images, made while the sender waits."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence

from starlette.responses import Response, StreamingResponse

from backend.context import Context
from backend.core import filing
from backend.core.errors import NotFound
from backend.core.filing import Output
from backend.core.generation import Generation
from backend.db.connection import Tx
from backend.live import links
from backend.manage import idempotency
from backend.manage.idempotency import Reply
from backend.steps import request
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation
from backend.web.openai import asked, campaigns, repeats, waiting
from backend.web.openai.asked import ImageBody
from backend.web.openai.shapes import ImagesView

TAG = "openai"


@operation(
    "POST",
    "/v1/images/generations",
    body=ImageBody,
    answers={200: ImagesView},
    tags=[TAG],
    limit="image",
    errors=[402, 404, 502, 507],
)
async def create_images(call: Call) -> Response:
    """Make images from a prompt and wait for them.

    When they are not finished in time the answer is 503: the same request sent again goes on waiting.
    """
    body: ImageBody = call.body
    ctx = call.ctx
    await request.ensure_room(ctx)
    campaign = await campaigns.of(call, body.campaign_id)
    name = repeats.name_of(call, f"{campaign.id}\n{body.model_dump_json(exclude_none=True)}")
    wanted = asked.image(ctx, body, campaign.id)

    async def work(tx: Tx) -> Reply:
        rows = await request.accept(tx, ctx, call.who, "image", wanted)
        return Reply(200, {"ids": [row.id for row in rows], "by_retry": repeats.is_retry(call)})

    answer = await idempotency.once(ctx, name, work)
    rows = await waiting.results(call, name, answer)
    response = await _answer(ctx, rows, as_urls=body.response_format == "url")
    if answer.replayed:
        response.headers["idempotent-replayed"] = "true"
    return response


async def _answer(ctx: Context, rows: Sequence[Generation], *, as_urls: bool) -> Response:
    """Answer with every file of every generation.

    A model may make several for one request: so there can be more than `n`.
    """
    first = rows[0]
    head = {
        "created": first.created_at // 1000,
        "output_format": (first.content_type or "").partition("/")[2] or None,
        "size": f"{first.width}x{first.height}" if first.width and first.height else None,
    }
    files = [(row, one) for row in rows for one in filing.outputs(row) if one.file_name]
    if as_urls:
        return replies.json_reply(head | {"data": [_linked(ctx, row, one) for row, one in files]})
    # Before the first byte: after it no error could be told any more.
    for _, one in files:
        if await ctx.store.size(one.file_name or "") != one.bytes:
            raise NotFound("The file is missing from the storage.", code="file_missing")
    before = replies.json_text(head | {"data": []})[:-2]
    return StreamingResponse(_written(ctx, files, before), media_type="application/json")


def _linked(ctx: Context, row: Generation, one: Output) -> dict[str, object]:
    file = None if one.file_name == row.file_name else one.index
    return {"id": row.id, "url": links.link(ctx, "images", row.id, file=file)}


async def _written(ctx: Context, files: Sequence[tuple[Generation, Output]], before: bytes) -> AsyncIterator[bytes]:
    """Yield the answer piece by piece: four large images as text would take a hundred megabytes at once."""
    yield before
    for number, (row, one) in enumerate(files):
        yield f'{"," if number else ""}{{"id":"{row.id}","b64_json":"'.encode()
        async for text in _as_base64(ctx.store.open(one.file_name or "")):
            yield text
        yield b'"}'
    yield b"]}"


async def _as_base64(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        rest += piece
        whole = len(rest) - len(rest) % 3
        yield base64.b64encode(rest[:whole])
        rest = rest[whole:]
    yield base64.b64encode(rest)
