"""Rows as the JSON that clients see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from backend.context import Context
from backend.core.formats import dollars, time
from backend.core.people import ApiKey, Asset, Campaign, Client
from backend.live import links
from backend.live.shown import Shown
from backend.live.views import GenerationView, View


class GenerationList(View):
    """One page, newest first."""

    items: list[GenerationView]
    next_cursor: str | None


class Generations(View):
    """The copies of one request."""

    items: list[GenerationView]


class ClientView(View):
    """A client. Dollars: its budget, what was spent of it, and what is reserved for what is unfinished."""

    id: str
    name: str
    budget_usd: float | None
    spent_usd: float
    reserved_usd: float
    created_at: str


class ClientList(View):
    """One page, newest first."""

    items: list[ClientView]
    next_cursor: str | None


class CampaignView(View):
    """A campaign of a client. Dollars: its budget, what was spent of it, what is reserved for what is unfinished."""

    id: str
    client_id: str
    name: str
    budget_usd: float | None
    spent_usd: float
    reserved_usd: float
    created_at: str


class CampaignList(View):
    """One page, newest first."""

    items: list[CampaignView]
    next_cursor: str | None


class AssetView(View):
    """A file a client brought; `url` needs no key for a year."""

    id: str
    client_id: str
    kind: Literal["image", "video", "audio"]
    name: str | None
    url: str
    content_type: str
    bytes: int
    sha256: str
    width: int | None
    height: int | None
    duration_s: float | None
    created_at: str


class AssetList(View):
    """One page, newest first."""

    items: list[AssetView]
    next_cursor: str | None


class KeyView(View):
    """A key without its text."""

    id: str
    client_id: str | None
    name: str
    prefix: str
    admin: bool
    image_rate_limit: str | None
    video_rate_limit: str | None
    campaign_id: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewKeyView(KeyView):
    """A key that was just made: `key` is shown this once, and null when the request is repeated."""

    key: str | None


class KeyList(View):
    """One page, newest first."""

    items: list[KeyView]
    next_cursor: str | None


def client(row: Client) -> Shown:
    """Show one client."""
    return {"id": row.id, "name": row.name, **_money(row), "created_at": time(row.created_at)}


def campaign(row: Campaign) -> Shown:
    """Show one campaign."""
    named = {"id": row.id, "client_id": row.client_id, "name": row.name}
    return {**named, **_money(row), "created_at": time(row.created_at)}


def _money(row: Client | Campaign) -> Shown:
    return {
        "budget_usd": dollars(row.budget_micros),
        "spent_usd": dollars(row.spent_micros),
        "reserved_usd": dollars(row.reserved_micros),
    }


def asset(ctx: Context, row: Asset) -> Shown:
    """Show one asset."""
    same = ("id", "client_id", "kind", "name", "content_type", "bytes", "sha256", "width", "height", "duration_s")
    shown = {name: getattr(row, name) for name in same}
    return shown | {"url": links.link(ctx, "assets", row.id), "created_at": time(row.created_at)}


def key(row: ApiKey) -> Shown:
    """Show one key, without its text."""
    return {
        "id": row.id,
        "client_id": row.client_id,
        "name": row.name,
        "prefix": f"sk_{row.prefix}",
        "admin": row.admin,
        "image_rate_limit": row.image_limit,
        "video_rate_limit": row.video_limit,
        "campaign_id": row.campaign_id,
        "created_at": time(row.created_at),
        "expires_at": time(row.expires_at),
        "revoked_at": time(row.revoked_at),
    }


def page(items: Sequence[Shown], next_cursor: str | None) -> Shown:
    """Show one page of a list."""
    return {"items": list(items), "next_cursor": next_cursor}
