"""The tools. Each method's docstring and parameters are what the language model reads."""

from __future__ import annotations

import base64
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ImageContent, TextContent
from pydantic import Field

from backend.web.mcp import answers
from backend.web.mcp.access import Access
from backend.web.mcp.answers import Campaigns, CampaignShown, Generated, Made, Page
from backend.web.mcp.parameters import (
    AspectRatio,
    AssetId,
    CampaignId,
    Copies,
    Cursor,
    Duration,
    Frame,
    Id,
    ImageId,
    Kind,
    Limit,
    Model,
    Once,
    Prompt,
    Seed,
    VideoId,
    WaitS,
)
from backend.web.mcp.waiting import wait_for
from reelhook import AsyncClient, Campaign, Generation, NotFound, ReelhookError, Unanswered, models

MOST_NAMED = 10


class Toolbox:
    """The tools over one service. `find` returns for each call where the service is and who calls."""

    def __init__(self, find: Callable[[Context], Access]) -> None:
        self._find = find

    async def generate_image(
        self,
        ctx: Context,
        prompt: Prompt = None,
        campaign_id: CampaignId = None,
        image_id: ImageId = None,
        asset_id: AssetId = None,
        video_id: VideoId = None,
        frame: Frame = None,
        aspect_ratio: AspectRatio = None,
        model: Model = None,
        copies: Copies = None,
        seed: Seed = None,
        wait_s: WaitS = 50,
        idempotency_key: Once = None,
    ) -> Generated:
        """Make an image from a prompt, or change one: give image_id, asset_id or video_id with it. This costs money.

        Usually takes 5 to 30 seconds. Never call it again because a result takes long: use get_generation with the id.
        """
        what = {"prompt": prompt, "campaign_id": campaign_id, "aspect_ratio": aspect_ratio, "model": model}
        start = {"image_id": image_id, "asset_id": asset_id, "video_id": video_id, "frame": frame}
        wanted = what | start | {"copies": copies, "seed": seed, "idempotency_key": idempotency_key}
        return await self._generate(ctx, "image", wanted, wait_s)

    async def generate_video(
        self,
        ctx: Context,
        prompt: Prompt = None,
        campaign_id: CampaignId = None,
        image_id: ImageId = None,
        asset_id: AssetId = None,
        video_id: VideoId = None,
        frame: Frame = None,
        duration: Duration = None,
        mode: Annotated[str | None, Field(description="the model's quality: standard or pro")] = None,
        negative_prompt: Annotated[str | None, Field(description="what to leave out")] = None,
        aspect_ratio: AspectRatio = None,
        model: Model = None,
        copies: Copies = None,
        seed: Seed = None,
        wait_s: WaitS = 50,
        idempotency_key: Once = None,
    ) -> Generated:
        """Make a video from a prompt, or let an image move: give its image_id; it may be unfinished. This costs money.

        With a prompt alone a start image is made first. Usually takes 1 to 5 minutes: it goes on after the wait, so
        call get_generation with the id; never call this again because a result takes long.
        """
        what = {"prompt": prompt, "campaign_id": campaign_id, "aspect_ratio": aspect_ratio, "model": model}
        start = {"image_id": image_id, "asset_id": asset_id, "video_id": video_id, "frame": frame}
        film = {"duration": duration, "mode": mode, "negative_prompt": negative_prompt}
        wanted = what | start | film | {"copies": copies, "seed": seed, "idempotency_key": idempotency_key}
        return await self._generate(ctx, "video", wanted, wait_s)

    async def get_generation(self, ctx: Context, id: Id, wait_s: WaitS = 0) -> Generated:
        """Say how an image or video stands: status, progress, link, cost or error. With wait_s it waits for the end."""
        async with self._service(ctx) as (service, access):
            row = await service.generation(id)
            return answers.generated(await wait_for(service, [row], wait_s, ctx, access.is_stopping))

    async def look(self, ctx: Context, id: Id) -> Annotated[CallToolResult, Made]:
        """Show you a completed image, or a picture of a completed video, small enough to be looked at."""
        async with self._service(ctx) as (service, _):
            row = await service.generation(id)
            if row.status != "completed":
                raise ToolError(f"This {row.kind} is {row.status}: there is nothing to see.")
            if row.poster_url is None:
                raise ToolError(f"There is no picture of this {row.kind}, only its url: {row.media.why}")
            picture = await service.poster(row)
        shown = answers.made(row)
        content = [
            ImageContent(type="image", data=base64.b64encode(picture).decode(), mime_type="image/jpeg"),
            TextContent(type="text", text=shown.model_dump_json()),
        ]
        return CallToolResult(content=list(content), structured_content=shown.model_dump(mode="json"))

    async def list_campaign(
        self,
        ctx: Context,
        campaign_id: CampaignId = None,
        kind: Kind = None,
        limit: Limit = 10,
        cursor: Cursor = None,
    ) -> Page:
        """List what was made for a campaign, newest first, whatever its status."""
        async with self._service(ctx) as (service, access):
            meant = await _campaign(service, access, campaign_id)
            only: models.Filters = {"campaign_id": meant, "kind": kind} if kind else {"campaign_id": meant}
            await service.request("GET", f"/api/v2/campaigns/{meant}")  # one that is not there is no empty list
            page = await service.generations_page(limit=limit, cursor=cursor, **only)
            return Page(generations=[answers.made(row) for row in page.items], next_cursor=page.next_cursor)

    async def list_campaigns(self, ctx: Context, limit: Limit = 20, cursor: Cursor = None) -> Campaigns:
        """List the campaigns you may make images and videos for, newest first."""
        async with self._service(ctx) as (service, _):
            page = await _campaigns(service, limit, cursor)
            return Campaigns(campaigns=[answers.campaign(row) for row in page.items], next_cursor=page.next_cursor)

    async def create_campaign(
        self, ctx: Context, name: Annotated[str, Field(min_length=1, max_length=200)]
    ) -> CampaignShown:
        """Make a campaign, when a person asks for one: images and videos are kept, listed and paid for by campaign."""
        async with self._service(ctx) as (service, _):
            return answers.campaign(await service.create_campaign(name))

    async def cancel_generation(self, ctx: Context, id: Id) -> Generated:
        """Stop an unfinished image or video. What the provider has done already may still cost money."""
        async with self._service(ctx) as (service, _):
            return answers.generated([await service.cancel(id)])

    async def _generate(self, ctx: Context, kind: str, wanted: dict[str, Any], wait_s: int) -> Generated:
        async with self._service(ctx) as (service, access):
            wanted["campaign_id"] = await _campaign(service, access, wanted["campaign_id"])
            rows = await _ask(service, kind, wanted)
            return answers.generated(await wait_for(service, rows, wait_s, ctx, access.is_stopping))

    @asynccontextmanager
    async def _service(self, ctx: Context) -> AsyncIterator[tuple[AsyncClient, Access]]:
        """Yield the service for one call. What it refuses is told in its own words."""
        access = self._find(ctx)
        try:
            async with AsyncClient(access.url, access.key or "") as service:
                yield service, access
        except NotFound as error:
            raise ToolError(f"{error} This key sees nothing with that id.") from error
        except ReelhookError as error:
            raise ToolError(str(error)) from error


async def _ask(service: AsyncClient, kind: str, wanted: dict[str, Any]) -> list[Generation]:
    """Ask under a key. If the answer is lost the model is told the key, so that it can ask again and pay once."""
    key = wanted["idempotency_key"] = wanted["idempotency_key"] or uuid.uuid4().hex
    ask: Callable[..., Awaitable[Generation | list[Generation]]]
    ask = service.generate_image if kind == "image" else service.generate_video
    try:
        asked = await ask(**{name: value for name, value in wanted.items() if value is not None})
    except Unanswered as error:
        again = f"It may be under way all the same. To ask again, and pay once, say idempotency_key='{key}'."
        raise ToolError(f"{error}. {again}") from error
    return asked if isinstance(asked, list) else [asked]


async def _campaign(service: AsyncClient, access: Access, named: str | None) -> str:
    """Return the campaign that is meant. Raises ToolError, which names the campaigns there are."""
    if named or access.campaign_id:
        return named or access.campaign_id or ""
    page = await _campaigns(service, MOST_NAMED, None)
    if len(page.items) == 1:
        return page.items[0].id
    if not page.items:
        raise ToolError("There is no campaign yet: make one with create_campaign, and give its id as campaign_id.")
    known = "; ".join(f"{row.id} ({row.name})" for row in page.items)
    raise ToolError(f"Say for which campaign, as campaign_id. There are: {known}")


async def _campaigns(service: AsyncClient, limit: int, cursor: str | None) -> models.Page[Campaign]:
    query = {"limit": limit, "cursor": cursor}
    return models.page(models.campaign)(await service.request("GET", "/api/v2/campaigns", query=query))
