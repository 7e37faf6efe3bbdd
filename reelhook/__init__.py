"""The Python client of Reelhook.

    with reelhook.Client() as client:
        video = client.generate_video(campaign_id=campaign_id, prompt="A red kite over dunes")
        client.download(client.wait(video, raise_on_failure=True), "kite.mp4")

`AsyncClient` is the same for asyncio. Everything raised is a ReelhookError; `reelhook.errors` draws the tree.
"""

from __future__ import annotations

from reelhook.async_client import AsyncClient
from reelhook.client import Client
from reelhook.errors import (
    ApiError,
    BadAnswer,
    BudgetExceeded,
    Conflict,
    DownloadFailed,
    Forbidden,
    GenerationFailed,
    InvalidArgument,
    InvalidRequest,
    NotFound,
    RateLimited,
    ReelhookError,
    Unanswered,
    Unauthorized,
    Unavailable,
    Unreachable,
    WaitTimedOut,
)
from reelhook.models import Asset, Campaign, Cost, Event, Failure, File, Generation, Media, Page, WebhookEndpoint

__all__ = [
    "ApiError",
    "Asset",
    "AsyncClient",
    "BadAnswer",
    "BudgetExceeded",
    "Campaign",
    "Client",
    "Conflict",
    "Cost",
    "DownloadFailed",
    "Event",
    "Failure",
    "File",
    "Forbidden",
    "Generation",
    "GenerationFailed",
    "InvalidArgument",
    "InvalidRequest",
    "Media",
    "NotFound",
    "Page",
    "RateLimited",
    "ReelhookError",
    "Unanswered",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "WaitTimedOut",
    "WebhookEndpoint",
]
