"""Events: what happened, as clients are told by webhooks and streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EVENT_TYPES = (
    "generation.processing",
    "generation.completed",
    "generation.failed",
    "generation.canceled",
    "budget.warning",
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event: about a generation, or about the `subject`, which is JSON.

    Ids grow in the order of the commits, so a reader that goes on after the last id misses nothing. `campaign_id` is
    None when the event is about a client as a whole. `created_at` is in milliseconds.
    """

    id: str
    generation_id: str | None
    client_id: str
    campaign_id: str | None
    type: str
    subject: dict[str, Any] | None
    created_at: int
