"""What every provider has to keep, whichever it is: a new one is named in `SUBJECTS` of test_provider_contract.py.

A subject is an adapter and the emulator of its provider, on a real socket. Its emulator is built on the kit, so that
it has the control routes and the faults of all others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from emulating import TINY, until

from backend.context import now_ms
from backend.core.catalog import ProviderFacts
from backend.core.outcomes import Outcome
from backend.emulator import Server
from backend.emulator.kit import app
from backend.emulator.kit.provider import Provider as Description
from backend.http import Http
from backend.media.cage import Cage
from backend.providers.base import Handle, Means, Order, Provider
from backend.storage import Spool
from backend.storage.folder import Folder

Build = Callable[[Means, ProviderFacts, str], Provider]  # with the origin of the API

FACTS = ProviderFacts(
    output_lifetime_s=3600, output_hosts=("files.example",), file_limit_mb=100, data_uri_limit_kb=256, run_limit_s=600
)
ID = "01890000-0000-7000-8000-000000000001"


@dataclass(frozen=True)
class Subject:
    """A provider under test: how it is built, its emulator, a model that makes pictures, and its secret."""

    name: str
    build: Build
    emulator: Description
    model: str
    secret: str

    def order(self, prompt: str = "a fox", **more: Any) -> Order:
        """What a generation with this prompt asks for."""
        return Order(ID, self.model, {"prompt": prompt, **more}, None, 60)


@dataclass
class Stand:
    """The emulator as the tests see it."""

    origin: str

    def spoil(self, *faults: str | dict[str, Any]) -> int:
        """These faults are in force from now on, and no others; 200, or 422 for one that cannot happen here."""
        wanted = [{"kind": fault} if isinstance(fault, str) else fault for fault in faults]
        return self._control("PUT", "faults", json={"faults": wanted}).status_code

    @property
    def creates(self) -> list[dict[str, Any]]:
        """Every create that arrived; `created` says whether a run was made of it, and would be paid for."""
        found: list[dict[str, Any]] = self._control("GET", "ledger").json()["creates"]
        return found

    @property
    def made(self) -> int:
        """How many runs were made."""
        return sum(bool(one.get("created")) for one in self.creates)

    def _control(self, method: str, path: str, **more: Any) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as http:
            return http.request(method, f"{self.origin}/emulator/{path}", **more)


@contextmanager
def standing(subject: Subject) -> Iterator[Stand]:
    """The subject's emulator on a free port."""
    server = Server(app.create(subject.emulator, TINY))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield Stand(server.origin)
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass
class Bench:
    """An adapter and what it speaks to."""

    subject: Subject
    provider: Provider
    stand: Stand
    http: Http
    folder: Path

    async def create(self, prompt: str = "a fox", **more: Any) -> Outcome:
        """One create, sent."""
        return await self.provider.create(self.provider.prepare(self.subject.order(prompt, **more)))

    async def ended(self, outcome: Outcome) -> Outcome:
        """What it becomes."""
        handle = Handle(outcome.provider_id, outcome.ref or {})
        for _ in range(2000):
            outcome = await self.provider.ask(handle)
            if outcome.state != "running":
                return outcome
        raise AssertionError("it never ended")


def bench(subject: Subject, stand: Stand, origin: str, folder: Path) -> Bench:
    """The adapter, which finds its provider at `origin`."""
    http = Http()
    means = Means(http, Spool(folder), now_ms, Folder(folder / "kept"), Cage())
    return Bench(subject, subject.build(means, FACTS, origin), stand, http, folder)
