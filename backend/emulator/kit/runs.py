"""Runs: what was accepted, would be paid for, and makes files. A provider calls them predictions, tasks or jobs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from backend.emulator.kit.fault_kinds import Arguments
from backend.emulator.kit.orders import Work

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

    def read(self) -> bytes:
        """The whole content; blocks."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def new_id() -> str:
    """26 lowercase letters and digits."""
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def stamp(at: datetime) -> str:
    """The time as JSON has it: `2026-11-28T17:00:00.000000Z`."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class Run:
    """One run; `origin` is how its creator reached the emulator, and all its URLs start with it.

    `status` is a word of this module, or the one that the fault `unknown_status` gave. `urls` is None until the
    outputs are delivered. `tenths` are the shares of the work that were reported, each from 0 to 10.
    """

    model: str
    work: Work
    input: dict[str, Any]
    origin: str
    webhook: str | None = None
    events: tuple[str, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, Arguments] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    deadline_at: datetime | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: str = STARTING
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None
    urls: list[str] | None = None
    tenths: list[int] = field(default_factory=list)
    files: list[Output] = field(default_factory=list)
    data_removed: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    last_announcement: asyncio.Task[None] | None = None

    @property
    def is_final(self) -> bool:
        return self.ended.is_set()

    @property
    def prompt(self) -> str:
        return self.work.prompt

    @property
    def file_urls(self) -> list[str]:
        return [f"{self.origin}/output/{self.id}/{file.name}" for file in self.files]

    def file(self, name: str) -> Output | None:
        return next((file for file in self.files if file.name == name), None)

    def finish(self, status: str) -> bool:
        """The first final status stays; False when there was one already."""
        if self.is_final:
            return False
        self.status, self.completed_at = status, datetime.now(UTC)
        self.ended.set()
        return True

    def remove_data(self) -> None:
        """Input, output and logs are gone, as some time after the end."""
        self.input, self.urls, self.tenths, self.files = {}, None, [], []
        self.data_removed = True


@dataclass
class Runs:
    """All runs, in the order they were created."""

    by_id: dict[str, Run] = field(default_factory=dict)
    in_order: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> None:
        self.by_id[run.id] = run
        self.in_order.append(run)
