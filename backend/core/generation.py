"""What a generation is and the moves it can make. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["image", "video"]

WAITING = "waiting"  # its source, another generation, has no bytes yet -> queued
QUEUED = "queued"  # due at a time; nothing has been sent -> submitting
SUBMITTING = "submitting"  # handed to a provider, answer not seen: may be running and billed
UNCLEAR = (
    "unclear"  # the answer will never be seen; never sent again, as it may be paid; a webhook or the list adopts it
)
PROCESSING = "processing"  # the provider has it and told us its id -> storing
STORING = "storing"  # the provider is done; its files are being fetched before they expire
COMPLETED = "completed"  # the bytes are in our storage
FAILED = "failed"  # it ended without a result; `error` says why
CANCELED = "canceled"  # somebody stopped it before it had a result

FINAL = (COMPLETED, FAILED, CANCELED)
STATUSES = (WAITING, QUEUED, SUBMITTING, UNCLEAR, PROCESSING, STORING, *FINAL)
ACTIVE = tuple(status for status in STATUSES if status not in FINAL)
LOCAL = "local"  # the provider of what this service makes itself: it costs nothing
SOURCE_NAMES = ("asset_id", "image_id", "video_id")
IN_FLIGHT = (SUBMITTING, UNCLEAR, PROCESSING)  # what counts against a provider's limit

# Where a row may come from, by where it goes: the WHERE of the only UPDATE of status. An end has no way out, so a
# webhook that comes late cannot turn a completed row into a failed one.
MOVES: Mapping[str, tuple[str, ...]] = {
    QUEUED: (WAITING, SUBMITTING),  # from submitting only when nothing was taken, or what was cost nothing
    SUBMITTING: (QUEUED,),
    UNCLEAR: (SUBMITTING,),
    PROCESSING: (SUBMITTING, UNCLEAR),
    STORING: (SUBMITTING, UNCLEAR, PROCESSING),
    COMPLETED: (STORING,),
    FAILED: (WAITING, QUEUED, SUBMITTING, UNCLEAR, PROCESSING, STORING),
    CANCELED: (WAITING, QUEUED, SUBMITTING, UNCLEAR, PROCESSING),  # not from storing: the result is there and paid
}

# What clients are shown. It never goes back: a refused submit returns to the queue, so both are "pending".
SHOWN: Mapping[str, str] = {
    WAITING: "pending",
    QUEUED: "pending",
    SUBMITTING: "pending",
    UNCLEAR: "processing",
    PROCESSING: "processing",
    STORING: "processing",
    COMPLETED: "completed",
    FAILED: "failed",
    CANCELED: "canceled",
}

ERROR_CODES = (
    "invalid_input",
    "moderated",
    "quota",
    "rate_limited",
    "provider_unavailable",
    "provider_failed",
    "output_expired",
    "output_invalid",
    "source_failed",
    "timed_out",
    "submit_unknown",
    "budget_exceeded",
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generation failed; `retryable` says whether the same request could succeed later."""

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One row: the request, where it stands, and its result. Times are milliseconds since 1970 UTC."""

    id: str
    kind: Kind
    status: str
    client_id: str
    campaign_id: str
    key_id: str | None = None
    batch_id: str | None = None
    retry_of: str | None = None
    provider: str
    model: str
    prompt: str | None = None
    source: dict[str, Any]
    params: dict[str, Any]
    metadata: dict[str, str]
    webhook_url: str | None = None
    nonce: str
    provider_id: str | None = None
    provider_ref: dict[str, str] | None = None  # what else the provider wants to be asked with
    attempts: int = 0
    polls: int = 0
    progress: float | None = None
    outputs: list[str] = field(default_factory=list)
    outputs_expire_at: int | None = None
    cancel_requested_at: int | None = None
    cancel_sent_at: int | None = None
    possibly_charged: bool = False
    file_name: str | None = None
    poster_name: str | None = None
    content_type: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    cost_estimated_micros: int | None = None
    cost_actual_micros: int | None = None
    failure: Failure | None = None
    created_at: int
    claimed_at: int | None = None
    submitted_at: int | None = None
    deadline_at: int | None = None
    finished_at: int | None = None
    due_at: int
    lease_owner: str | None = None
    held_at: int | None = None
    began_at: int | None = None
    bill_told: str | None = None
    media_state: Literal["read", "unread"] | None = None
    media_why: str | None = None
    account: str | None = None  # as `Provider.key`; None: any may take it, or it was sent before there were several
    more_files: list[dict[str, Any]] | None = None  # see filing.outputs

    @property
    def account_key(self) -> str:
        """The account that has it, as `Provider.key` names it."""
        return self.account or self.provider

    @property
    def shown_status(self) -> str:
        """The status as clients see it."""
        return SHOWN[self.status]

    @property
    def source_ids(self) -> list[str]:
        """The assets and generations it starts from, the one for its end included."""
        return sorted({one[name] for one in self.sources for name in SOURCE_NAMES if name in one})

    @property
    def sources(self) -> list[dict[str, Any]]:
        """What names assets and generations, in order: what it starts from, what it ends on, what it is joined of."""
        return [self.source, self.source.get("end_image") or {}, *self.source.get("films", ())]

    @property
    def reserved_micros(self) -> int:
        """What it reserves of the budgets while it is unfinished, in millionths of a dollar."""
        return self.cost_estimated_micros or 0

    @property
    def spent_micros(self) -> int:
        """What it is counted with when it has ended, in millionths of a dollar.

        It is what was billed, else the estimate if it was billed or may have been. `backend.core.billing` judges which.
        """
        if self.cost_actual_micros is not None:
            return self.cost_actual_micros
        return self.reserved_micros if self.status == COMPLETED or self.possibly_charged else 0
