"""The ledger: what was asked of the provider, written down before any fault strikes.

Crash tests read it: a run paid twice shows as two creates with `created` true. The JSON calls a run a prediction,
whatever the provider calls it: scripts that read it were written when there was one provider.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from backend.emulator.kit.runs import stamp


@dataclass
class Create:
    """One POST that asked for a run; `answered` once its answer was handed to the connection."""

    model: str
    webhook: str | None
    input: dict[str, Any]
    at: str
    prediction_id: str | None = None
    created: bool = False
    answered: bool = False


def write_down(model: str, given: Any, webhook: Any = None) -> Create:
    """An entry, as far as the request can be understood: it is written before the request is checked."""
    return Create(
        model=model,
        webhook=webhook if isinstance(webhook, str) else None,
        input=shorten(given) if isinstance(given, dict) else {},
        at=stamp(datetime.now(UTC)),
    )


@dataclass
class Attempt:
    """One webhook attempt; `status` None: no answer came, or it was lost on purpose."""

    prediction_id: str
    webhook_id: str
    event: str
    attempt: int
    status: int | None


@dataclass
class End:
    """How one run ended; `sha256` of its first file and of all its `files`: what must be stored.

    `began`: it ran before. A run that succeeded is billed, and one that was canceled; a failed one is not.
    """

    prediction_id: str
    status: str
    sha256: str | None
    began: bool
    files: list[str] = field(default_factory=list)
    billed: bool = field(init=False)

    def __post_init__(self) -> None:
        self.billed = self.status == "succeeded" or (self.status == "canceled" and self.began)


@dataclass
class Ledger:
    """Counts and entries since the start, or since it was told to forget.

    `handed` has by run the SHA-256 of other bytes than were made, which were handed out as whole.
    """

    creates: list[Create] = field(default_factory=list)
    cancels: list[dict[str, str]] = field(default_factory=list)
    webhooks: list[Attempt] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    handed: dict[str, list[str]] = field(default_factory=dict)
    gets: int = 0
    lists: int = 0
    files: int = 0
    downloads: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def shorten(value: Any) -> Any:
    """Input as it is written down: a data URI of megabytes keeps its first characters."""
    if isinstance(value, str) and len(value) > 300:
        return f"{value[:60]}... ({len(value)} characters)"
    if isinstance(value, list):
        return [shorten(item) for item in value]
    if isinstance(value, dict):
        return {name: shorten(item) for name, item in value.items()}
    return value
