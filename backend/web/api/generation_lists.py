"""Lists of generations: all of them, those of a client, those of a campaign."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response

from backend.core.requests import Moment
from backend.db.lists import Filters
from backend.live import shown
from backend.steps import browse
from backend.web.api import views
from backend.web.api.paging import Page, to_ms
from backend.web.api.views import GenerationList
from backend.web.calls import replies
from backend.web.calls.operation import Call, operation

Text = Annotated[str, Field(min_length=1, max_length=200)]


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
