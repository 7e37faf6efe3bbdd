"""One run of one case: a folder, a provider that keeps a ledger, and a service to kill."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditor import Finding, creates_of, findings, witness
from emulating import Provider, until
from gateway import Gateway

Fault = dict[str, Any]

NO_WEBHOOKS: Fault = {"kind": "webhook_lost"}
UNFINISHED = "SELECT id, status FROM generations WHERE finished_at IS NULL"


def slow_run(seconds: float) -> Fault:
    """The provider takes so long for each."""
    return {"kind": "delay", "on": "run", "delay_s": seconds}


@dataclass
class Scene:
    """What a story works with; `round` counts from 0 and says which moment is hit this time."""

    folder: Path
    provider: Provider
    service: Gateway
    round: int
    chance: random.Random
    kills: int = 0
    patience_s: float = 60.0
    found: list[Finding] = field(default_factory=list)  # by the story itself, which looked where no audit can
    at_the_end: ExitStack = field(default_factory=ExitStack)  # what the story started besides the service

    def start(self, **settings: str) -> None:
        """Start the service for the first time, with a campaign, and a witness in its database."""
        self.service.settings.update(settings)
        self.service.start()
        self.service.begin()
        witness(self.folder)

    def ask(self, count: int = 1, kind: str = "image", **wanted: Any) -> list[str]:
        """Ask for so many, each accepted with 202."""
        prompt = wanted.pop("prompt", f"{kind} of round {self.round}")
        ids = [self.service.ask(kind, prompt=f"{prompt}, {n}", **wanted)["id"] for n in range(count)]
        self.service.accepted += ids
        return ids

    def pause(self, most_s: float, *, after_s: float = 0.0) -> None:
        """Let a moment pass that is drawn by chance: which one is hit is what differs between the rounds."""
        time.sleep(after_s + self.chance.random() * most_s)  # the moment itself is the story

    def kill(self) -> None:
        """kill -9, counted."""
        self.service.kill()
        self.kills += 1

    def restart(self) -> None:
        self.kill()
        self.service.start()

    def restart_later(self) -> None:
        """The same, and what was to wait for its time has waited."""
        self.kill()
        self.let_time_pass()
        self.service.start()

    def is_known_to_provider(self, id: str) -> bool:
        return any(create["created"] for create in creates_of(self.provider.ledger, id))

    def rows(self, statement: str = UNFINISHED, **values: Any) -> list[tuple[Any, ...]]:
        """Read the database beside the service."""
        with closing(sqlite3.connect(f"file:{self.folder}/reelhook.db?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(statement, values).fetchall()

    def settle(self) -> None:
        """No more faults: start the service if it is down, and wait until everything has ended."""
        self.provider.spoil()
        if self.service.process is None or self.service.process.poll() is not None:
            self.service.start()
        with suppress(AssertionError):
            until(self.is_settled, self.patience_s)
        if any(status == "unclear" for _, status in self.rows()):
            self.let_the_deadline_pass()
            with suppress(AssertionError):
                until(lambda: not self.rows(), self.patience_s)

    def change(self, statement: str, **values: Any) -> None:
        """Change the database while the service is down."""
        with closing(sqlite3.connect(self.folder / "reelhook.db", timeout=10)) as connection, connection:
            connection.execute(statement, values)

    def let_time_pass(self) -> None:
        """While the service is down: whatever is to be looked at later is due, no provider is paused any more."""
        self.change("UPDATE generations SET due_at = 1 WHERE finished_at IS NULL AND lease_owner IS NULL")
        self.change("UPDATE providers SET paused_until = 1")

    def audit(self) -> list[Finding]:
        """Stop the service and compare what is left with the ledger."""
        found = list(self.found)
        if self.service.stop() != 0:
            found.append(Finding("untrue", f"its exit status was not 0: {self.service.log()[-1500:]}"))
        return found + findings(self.folder, self.provider.ledger, self.service.accepted)

    def is_settled(self) -> bool:
        """Everything has ended but creates that never arrived: of these nobody will ever hear."""
        ledger = self.provider.ledger
        sent = {id for id, _ in self.rows() if any(create["created"] for create in creates_of(ledger, id))}
        return all(status in ("unclear", "waiting") and id not in sent for id, status in self.rows()) and (
            not self.rows("SELECT id FROM deliveries WHERE handled_at IS NULL")
        )

    def let_the_deadline_pass(self) -> None:
        """A quarter of an hour in a moment, for creates that nobody knows of."""
        self.service.stop()
        self.change("UPDATE generations SET deadline_at = 1, due_at = 1 WHERE status = 'unclear'")
        self.service.start()
