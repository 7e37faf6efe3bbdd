"""Generations: one, lists of them, and what can be done with one."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from starlette.responses import Response

from backend.core.errors import NotFound
from backend.core.generation import Kind
from backend.core.requests import Moment, Nothing
from backend.db.connection import Tx
from backend.db.lists import Filters
from backend.live import shown
from backend.manage import idempotency
from backend.manage.idempotency import Reply
from backend.steps import browse, change, request, retry
from backend.web.api import views
from backend.web.api.views import GenerationList, GenerationView
from backend.web.callers import limits
from backend.web.calls import replies
from backend.web.calls.inputs import Query
from backend.web.calls.operation import Call, operation

Text = Annotated[str, Field(min_length=1, max_length=200)]


class Page(Query):
    """Where a list goes on and how much of it is wanted."""

    limit: int = Field(20, ge=1, le=100)
    cursor: Annotated[str, Field(max_length=200)] | None = None


class Narrowing(Page):
    """Filters that every list of generations has."""

    status: Literal["pending", "processing", "completed", "failed", "canceled"] | None = None
    stage: Literal["waiting", "queued", "submitting", "unclear", "processing", "storing"] | None = None
    possibly_charged: bool | None = Field(None, description="ended without a result, and may be billed all the same")
    provider: Text | None = None
    model: Text | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    q: Text | None = Field(None, description="in the prompt")


class Listing(Narrowing):
    """Filters of the list of all generations."""

    kind: Literal["image", "video"] | None = None
    client_id: Text | None = None
    campaign_id: Text | None = None
    batch_id: Text | None = None


@operation("GET", "/api/v2/generations", query=Listing, answers={200: GenerationList}, tags=["generations"])
async def list_generations(call: Call) -> Response:
    """List generations, newest first."""
    query = call.query
    own = call.who.only_client
    if own and query.client_id not in (None, own):
        return replies.json_reply(views.page([], None))
    filters = _filters(query, kind=query.kind, client_id=own or query.client_id, campaign_id=query.campaign_id)
    return await _page(call, filters)


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
    """Stop a generation: 200 when it is canceled, 202 when the provider was asked and has the last word."""

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
    for kind, number in kinds.items():
        await limits.admit(call.site.limits, call.request, call.who, [kind], number)
    await request.ensure_room(ctx)

    async def work(tx: Tx) -> Reply:
        row = await retry.retry(tx, ctx, call.who, id, kinds)
        return Reply(202, shown.generation(ctx, row), f"/api/v2/generations/{row.id}")

    return await replies.once(call, work)


async def _kinds_to_retry(call: Call) -> Counter[Kind]:
    """How many of each kind will be made, that of the generation itself last; one when it was answered before."""
    ctx, id, name = call.ctx, call.path["id"], replies.name_of(call)
    row = await browse.generation(ctx, call.who, id)
    if name and await idempotency.look(ctx, name):
        return Counter({row.kind: 1})
    kinds = (await ctx.db.read(lambda tx: retry.plan(tx, ctx, call.who, id))).kinds
    return Counter({kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: kind == row.kind)})


@operation("DELETE", "/api/v2/generations/{id}", answers={204: None}, tags=["generations"], errors=[409])
async def delete_generation(call: Call) -> Response:
    """Remove a finished generation and its files."""
    await change.remove(call.ctx, call.who, call.path["id"])
    call.ctx.wake()
    return Response(status_code=204)


@operation(
    "GET", "/api/v2/campaigns/{id}/generated-images", query=Narrowing, answers={200: GenerationList}, tags=["campaigns"]
)
async def list_campaign_images(call: Call) -> Response:
    """List the images of a campaign, newest first."""
    return await _of_campaign(call, "image")


@operation(
    "GET", "/api/v2/campaigns/{id}/generated-videos", query=Narrowing, answers={200: GenerationList}, tags=["campaigns"]
)
async def list_campaign_videos(call: Call) -> Response:
    """List the videos of a campaign, newest first."""
    return await _of_campaign(call, "video")


@operation(
    "GET", "/api/v2/clients/{id}/generated-images", query=Narrowing, answers={200: GenerationList}, tags=["clients"]
)
async def list_client_images(call: Call) -> Response:
    """List the images of a client, newest first."""
    return await _of_client(call, "image")


@operation(
    "GET", "/api/v2/clients/{id}/generated-videos", query=Narrowing, answers={200: GenerationList}, tags=["clients"]
)
async def list_client_videos(call: Call) -> Response:
    """List the videos of a client, newest first."""
    return await _of_client(call, "video")


async def _of_kind(call: Call, kind: str) -> Response:
    row = await browse.generation(call.ctx, call.who, call.path["id"])
    if row.kind != kind:
        raise NotFound(f"There is no such {kind}.", code=f"{kind}_not_found")
    return replies.json_reply(shown.generation(call.ctx, row))


async def _of_campaign(call: Call, kind: str) -> Response:
    campaign = await browse.campaign(call.ctx, call.who, call.path["id"])
    return await _page(call, _filters(call.query, kind=kind, campaign_id=campaign.id))


async def _of_client(call: Call, kind: str) -> Response:
    client = await browse.client(call.ctx, call.who, call.path["id"])
    return await _page(call, _filters(call.query, kind=kind, client_id=client.id))


async def _page(call: Call, filters: Filters) -> Response:
    query: Page = call.query
    rows, cursor = await browse.generation_page(call.ctx, call.who, filters, query.cursor, query.limit)
    return replies.json_reply(views.page([shown.generation(call.ctx, row) for row in rows], cursor))


def _filters(query: Any, **fixed: str | None) -> Filters:
    return Filters(
        statuses=browse.stages_of(query.status, query.stage),
        possibly_charged=query.possibly_charged,
        provider=query.provider,
        model=query.model,
        batch_id=getattr(query, "batch_id", None),
        created_after=to_ms(query.created_after),
        created_before=to_ms(query.created_before),
        q=query.q,
        **fixed,
    )


def to_ms(at: pydantic.AwareDatetime | None) -> int | None:
    """A moment in milliseconds since 1970 UTC, within what an id can begin with."""
    return None if at is None else min(max(int(at.timestamp() * 1000), 0), (1 << 48) - 1)
