"""Generations: one, lists of them, and what can be done with one."""

from __future__ import annotations

from collections import Counter

from starlette.responses import Response

from backend.core.errors import NotFound
from backend.core.generation import Kind
from backend.core.requests import Nothing
from backend.db.connection import Tx
from backend.live import shown
from backend.live.views import GenerationView
from backend.manage import idempotency
from backend.manage.idempotency import Reply
from backend.steps import browse, change, request, retry
from backend.web.callers import limits
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation


@operation("GET", "/api/v2/generations/{id}", answers={200: GenerationView}, tags=["generations"])
async def get_generation(call: Call) -> Response:
    """Show one generation."""
    row = await browse.generation(call.ctx, call.who, call.path["id"])
    return replies.json_reply(shown.generation(call.ctx, row))


@operation("GET", "/api/v2/images/{id}", answers={200: GenerationView}, tags=["media"])
async def get_image(call: Call) -> Response:
    """Show one generated image."""
    return await _of_kind(call, "image")


@operation("GET", "/api/v2/videos/{id}", answers={200: GenerationView}, tags=["media"])
async def get_video(call: Call) -> Response:
    """Show one generated video."""
    return await _of_kind(call, "video")


@operation(
    "POST",
    "/api/v2/generations/{id}/cancel",
    body=Nothing,
    answers={200: GenerationView, 202: GenerationView},
    tags=["generations"],
    errors=[409],
)
async def cancel_generation(call: Call) -> Response:
    """Stop a generation: 200 when it is canceled, 202 when the provider has the last word, if it can stop it at all."""

    async def work(tx: Tx) -> Reply:
        row = await change.cancel(tx, call.ctx, call.who, call.path["id"])
        return Reply(200 if row.status == "canceled" else 202, shown.generation(call.ctx, row))

    return await replies.once(call, work)


@operation(
    "POST",
    "/api/v2/generations/{id}/retry",
    body=Nothing,
    answers={202: GenerationView},
    tags=["generations"],
    errors=[402, 409, 507],
)
async def retry_generation(call: Call) -> Response:
    """Make the same request anew: a new generation that names the old one; sources that failed are made anew too.

    Each new generation counts as a request of its kind.
    """
    ctx, id, kinds = call.ctx, call.path["id"], await _kinds_to_retry(call)
    for kind, number in kinds.items():  # before the transaction: that may be run again, and would count twice
        await limits.admit(call.site.limits, call.request, call.who, [kind], number)
    await request.ensure_room(ctx)

    async def work(tx: Tx) -> Reply:
        row = await retry.retry(tx, ctx, call.who, id, kinds)
        return Reply(202, shown.generation(ctx, row), f"/api/v2/generations/{row.id}")

    return await replies.once(call, work)


async def _kinds_to_retry(call: Call) -> Counter[Kind]:
    """Return how many of each kind will be made, with the kind of the generation itself last.

    A request that was answered before counts as one, also when what it named was deleted since.
    """
    ctx, id, name = call.ctx, call.path["id"], replies.name_of(call)
    if name and (kept := await idempotency.look(ctx, name)):
        return Counter({kept.body["kind"]: 1})
    row = await browse.generation(ctx, call.who, id)
    kinds = (await ctx.db.read(lambda tx: retry.plan(tx, ctx, call.who, id))).kinds
    return Counter({kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: kind == row.kind)})


@operation("DELETE", "/api/v2/generations/{id}", answers={204: None}, tags=["generations"], errors=[409])
async def delete_generation(call: Call) -> Response:
    """Remove a finished generation and its files."""
    await change.remove(call.ctx, call.who, call.path["id"])
    call.ctx.wake()
    return Response(status_code=204)


async def _of_kind(call: Call, kind: str) -> Response:
    row = await browse.generation(call.ctx, call.who, call.path["id"])
    if row.kind != kind:
        raise NotFound(f"There is no such {kind}.", code=f"{kind}_not_found")
    return replies.json_reply(shown.generation(call.ctx, row))
