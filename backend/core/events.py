"""What happened, as clients are told."""

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
    """What happened, as clients are told: about a generation, or about the `subject`.

    Ids grow in the order of the commits. `campaign_id` is None when it is about a client as a whole.
    """

    id: str
    generation_id: str | None
    client_id: str
    campaign_id: str | None
    type: str
    subject: dict[str, Any] | None
    created_at: int
