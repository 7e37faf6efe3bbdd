"""Generations as clients are shown them: the documented shape, which `shown` fills."""

from __future__ import annotations

from typing import Any, Literal

import pydantic


class View(pydantic.BaseModel):
    """The documented shape of an answer."""

    model_config = pydantic.ConfigDict(extra="forbid")


class CostView(View):
    """US dollars: what it should cost, and what it did."""

    estimated: float | None
    actual: float | None


class FailureView(View):
    """Why a generation failed. `retryable`: the same request could succeed later."""

    code: str
    message: str
    retryable: bool


class MediaView(View):
    """What we could make of a file: `unread` is stored and could not be looked into, `missing` is not stored."""

    state: Literal["read", "unread", "missing"]
    why: str | None


class FileView(View):
    """One output of a generation; `index` is its place in the provider's answer. A missing one has no `url`."""

    index: int
    url: str | None
    content_type: str | None
    bytes: int | None
    sha256: str | None
    width: int | None
    height: int | None
    duration_s: float | None
    media: MediaView


class GenerationView(View):
    """One generation: the request, where it stands, and its result."""

    # A field with the name of a row's is filled from it; `shown` makes the others.

    id: str
    kind: Literal["image", "video"]
    status: Literal["pending", "processing", "completed", "failed", "canceled"]
    stage: str
    progress: float | None
    client_id: str
    campaign_id: str
    batch_id: str | None
    retry_of: str | None
    provider: str
    model: str
    prompt: str | None
    source: dict[str, Any]
    params: dict[str, Any]
    url: str | None
    poster_url: str | None
    content_type: str | None
    bytes: int | None
    sha256: str | None
    width: int | None
    height: int | None
    duration_s: float | None
    cost_usd: CostView
    error: FailureView | None
    media: MediaView
    files: list[FileView]
    metadata: dict[str, str]
    possibly_charged: bool
    created_at: str
    submitted_at: str | None
    completed_at: str | None
