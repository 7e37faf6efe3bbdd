"""What can be asked for, as keyword arguments of `generate_image` and `generate_video`."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class _Wanted(TypedDict, total=False):
    client_id: str
    prompt: str
    asset_id: str
    image_id: str
    video_id: str
    frame: Literal["first", "last"]
    provider: str
    model: str
    aspect_ratio: str
    seed: int
    webhook_url: str
    metadata: dict[str, str]
    idempotency_key: str


class ImageWanted(_Wanted, total=False):
    """At least one of prompt, asset_id, image_id, video_id is needed.

    `idempotency_key`: the same key and request give the same generation again, also from another process.
    """


class VideoWanted(_Wanted, total=False):
    """The same as for an image, and what only a video has; `duration` is in seconds."""

    duration: int
    mode: str
    resolution: str
    negative_prompt: str
    end_image: dict[str, Any]
