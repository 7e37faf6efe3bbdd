"""Predictions as the provider shows them, and the newest-first list of them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from backend.emulator.kit.kinds import Arguments
from backend.emulator.replicate.models import Model

STARTING = "starting"  # -> processing, aborted, canceled
PROCESSING = "processing"  # -> succeeded, failed, canceled
FINAL = ("succeeded", "failed", "canceled", "aborted")
EVENTS = ("start", "output", "logs", "completed")


@dataclass(frozen=True)
class Output:
    """The bytes of an output: a file, or for the prepared ones the content itself."""

    name: str
    content_type: str
    size: int
    source: Path | bytes

    @cached_property
    def sha256(self) -> str:
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        with self.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Prediction:
    """One prediction; `origin` is how its creator reached the emulator, and all its URLs start with it."""

    model: Model
    input: dict[str, Any]
    origin: str
    webhook: str | None = None
    events: tuple[str, ...] | None = None
    faults: dict[str, Arguments] = field(default_factory=dict)
    deadline_at: datetime | None = None
    id: str = field(default_factory=lambda: new_id())
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: str = STARTING
    started_at: datetime | None = None
    completed_at: datetime | None = None
    output: Any = None
    error: str | None = None
    logs: str = ""
    data_removed: bool = False
    file: Output | None = None
    more: list[Output] = field(default_factory=list)  # of several outputs those after the first
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    last_announcement: asyncio.Task[None] | None = None

    @property
    def is_final(self) -> bool:
        return self.ended.is_set()

    @property
    def prompt(self) -> str:
        return str(self.input.get("prompt", ""))

    @property
    def files(self) -> list[Output]:
        return [self.file, *self.more] if self.file else []

    @property
    def file_url(self) -> str:
        return self.file_urls[0] if self.file else f"{self.origin}/output/{self.id}/"

    @property
    def file_urls(self) -> list[str]:
        return [f"{self.origin}/output/{self.id}/{file.name}" for file in self.files]

    def as_json(self) -> dict[str, Any]:
        """The prediction object: of GET, of lists and of webhooks."""
        shown: dict[str, Any] = {
            "id": self.id,
            "model": self.model.slug,
            "version": "hidden",
            "input": self.input,
            "logs": self.logs,
            "output": self.output,
            "data_removed": self.data_removed,
            "error": self.error,
            "source": "api",
            "status": self.status,
            "created_at": stamp(self.created_at),
        }
        shown |= self._times() | self._webhook()
        shown["urls"] = {
            "web": f"{self.origin}/p/{self.id}",
            "get": f"{self.origin}/v1/predictions/{self.id}",
            "cancel": f"{self.origin}/v1/predictions/{self.id}/cancel",
        }
        return shown

    def _times(self) -> dict[str, Any]:
        times = {
            "started_at": self.started_at,
            "completed_at": self.completed_at,
            "deadline": self.deadline_at,
        }
        shown: dict[str, Any] = {name: stamp(at) for name, at in times.items() if at}
        if self.completed_at:
            ran = self.completed_at - (self.started_at or self.completed_at)
            total = self.completed_at - self.created_at
            shown["metrics"] = {"predict_time": ran.total_seconds(), "total_time": total.total_seconds()}
        return shown

    def _webhook(self) -> dict[str, Any]:
        if self.webhook is None:
            return {}
        filtered = {} if self.events is None else {"webhook_events_filter": list(self.events)}
        return {"webhook": self.webhook, **filtered}

    def finish(self, status: str) -> bool:
        """The first final status stays; False when there was one already."""
        if self.is_final:
            return False
        self.status, self.completed_at = status, datetime.now(UTC)
        self.ended.set()
        return True

    def remove_data(self) -> None:
        """Input, output and logs are gone, as one hour after the end."""
        self.input, self.output, self.logs, self.file, self.more = {}, None, "", None, []
        self.data_removed = True


def new_id() -> str:
    """26 lowercase letters and digits."""
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def stamp(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Page:
    """Up to `size` predictions, newest first; `older` and `newer` are cursors of the neighbouring pages."""

    items: list[Prediction]
    older: str | None
    newer: str | None


class Predictions:
    """All predictions in the order they were created."""

    def __init__(self) -> None:
        self.by_id: dict[str, Prediction] = {}
        self.in_order: list[Prediction] = []

    def add(self, prediction: Prediction) -> None:
        self.by_id[prediction.id] = prediction
        self.in_order.append(prediction)

    def page(self, cursor: str, after: datetime | None, before: datetime | None, size: int = 100) -> Page:
        """`cursor` is "" or one this method gave; `after` is inclusive, `before` is not."""
        low = bisect_left(self.in_order, after, key=_created_at) if after else 0
        high = bisect_left(self.in_order, before, key=_created_at) if before else len(self.in_order)
        way, _, position = cursor.partition("-")
        if way == "older":
            top = max(low, min(high, int(position)))
        elif way == "newer":
            top = max(low, min(high, int(position) + size))
        else:
            top = high
        bottom = max(low, top - size)
        older = f"older-{bottom}" if bottom > low else None
        newer = f"newer-{top}" if top < high else None
        return Page(self.in_order[bottom:top][::-1], older, newer)


def _created_at(prediction: Prediction) -> datetime:
    return prediction.created_at
