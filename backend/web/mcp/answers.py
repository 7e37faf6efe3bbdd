"""What the tools tell: less than the API does, for every word of it is read by a language model."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from reelhook import Campaign, Generation

FINAL = ("completed", "failed", "canceled")


class Made(BaseModel):
    """An image or video that was asked for."""

    id: str
    kind: str = Field(description="image or video")
    status: str = Field(description="pending, processing, completed, failed or canceled")
    progress: float | None = Field(description="0 to 1 while it is processing, when the provider says so")
    campaign_id: str
    model: str
    prompt: str | None
    url: str | None = Field(description="a link to the file, for a person to open; there when completed")
    width: int | None
    height: int | None
    duration_s: float | None = Field(description="of a video")
    cost_usd: float | None = Field(description="what it cost; before its end what it should cost")
    error: str | None = Field(description="why it failed")
    created_at: str


class Generated(BaseModel):
    """What was asked for, and how it stands."""

    generations: list[Made]
    next_step: str = Field(description="what to do now")


class Page(BaseModel):
    """Part of a list, newest first."""

    generations: list[Made]
    next_cursor: str | None = Field(description="give it as `cursor` for the next page; null at the end")


class CampaignShown(BaseModel):
    """What generations are made for."""

    id: str
    name: str


class Campaigns(BaseModel):
    """Part of the list of campaigns, newest first."""

    campaigns: list[CampaignShown]
    next_cursor: str | None = Field(description="give it as `cursor` for the next page; null at the end")


def made(row: Generation) -> Made:
    """A generation as the tools tell it."""
    cost = row.cost_usd
    return Made(
        id=row.id,
        kind=row.kind,
        status=row.status,
        progress=row.progress,
        campaign_id=row.campaign_id,
        model=row.model,
        prompt=row.prompt,
        url=row.url,
        width=row.width,
        height=row.height,
        duration_s=row.duration_s,
        cost_usd=cost.estimated if cost.actual is None else cost.actual,
        error=row.error.message if row.error else None,
        created_at=row.created_at.isoformat(),
    )


def generated(rows: Sequence[Generation]) -> Generated:
    """Generations with a word on what comes next."""
    return Generated(generations=[made(row) for row in rows], next_step=_next_step(rows))


def campaign(row: Campaign) -> CampaignShown:
    """A campaign as the tools tell it."""
    return CampaignShown(id=row.id, name=row.name)


def _next_step(rows: Sequence[Generation]) -> str:
    going = [row.id for row in rows if row.status not in FINAL]
    if going:
        return (
            f"Not finished, and it goes on by itself: call get_generation with id {', then '.join(going)} and wait_s "
            "to wait for the result. Do not ask for it again: that would be paid for again."
        )
    if any(row.status == "completed" for row in rows):
        return "Give the url to the person, or call look to see the picture yourself."
    return "It ended without a result; the error says why."
