"""One run: customers ask, the service is killed, stopped and held up, and when it is calm all is audited."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from auditor import BACKWARDS, LOST, STUCK, UNTRUE, Finding, findings, witness
from emulating import TINY, Provider, emulating, png, until
from gateway import Gateway, new_gateway

from backend.cli.processes import answer_of
from storms import weather
from storms.customers import Books, Customer

PROVIDER = replace(TINY, image_s=0.2, video_s=0.8, webhook_delays_s=(0.5,) * 40)  # a restart takes seconds
CUSTOMERS = 6
UNFINISHED = "SELECT id, status FROM generations WHERE finished_at IS NULL ORDER BY id"
LEFT = f"SELECT COUNT(*) FROM ({UNFINISHED}) UNION ALL SELECT COUNT(*) FROM trash UNION ALL SELECT COUNT(*) FROM deliveries WHERE handled_at IS NULL"  # noqa: E501, S608


@dataclass
class Plan:
    """How many generations, restarts, seconds between two of them; how rare each fault is.

    When nothing has moved for `calm_s`, only time can help.
    """

    generations: int = 2000
    restarts: int = 20
    every_s: float = 4.0
    seed: int = 1
    rare: int = 20
    calm_s: float = 12.0


@dataclass
class Report:
    """What it came to. `ends` counts statuses and error codes."""

    found: list[Finding] = field(default_factory=list)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    shocks: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    created: int = 0
    deleted: int = 0
    asked_s: float = 0.0
    seconds: float = 0.0


def run(plan: Plan, told: Callable[[str], None] = lambda _: None) -> Report:
    """The whole run in a new folder; `told` hears of its progress."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reelhook-chaos-") as place, emulating(PROVIDER) as provider:
        service = new_gateway(Path(place), provider, AUTH_MODE="keys", MAX_IN_FLIGHT="2000", MAX_OUTPUT_MB="5")
        storm = Storm(plan, Path(place), provider, service, random.Random(plan.seed), told)
        try:
            storm.begin()
            storm.rage()
            storm.report.asked_s = time.monotonic() - began
            storm.calm()
            storm.audit()
        finally:
            service.abandon()
            for face in (service, *(customer.http for customer in storm.customers)):
                face.close()
    storm.report.seconds = time.monotonic() - began
    return storm.report


@dataclass
class Storm:
    """A run under way."""

    plan: Plan
    folder: Path
    provider: Provider
    service: Gateway
    chance: random.Random
    told: Callable[[str], None]
    books: Books = field(default_factory=lambda: Books(0))
    report: Report = field(default_factory=Report)
    customers: list[Customer] = field(default_factory=list)
    admin: str = ""

    def begin(self) -> None:
        """A key, the first start, a witness, and customers with all they need."""
        made = answer_of(["keys", "create", "--name", "chaos", "--admin", "--json"], self.folder, self.service.settings)
        self.admin = json.loads(made)["key"]
        self.service.start()
        witness(self.folder)
        self.books.wanted = self.plan.generations
        pause_s = CUSTOMERS * self.plan.restarts * self.plan.every_s / self.plan.generations
        self.customers = [self._customer(f"customer {number}", pause_s) for number in range(CUSTOMERS)]
        self.change_weather()

    def rage(self) -> None:
        """Customers in threads of their own, and one shock after the other until both are done."""
        threads = [threading.Thread(target=one.work, name=one.name) for one in self.customers]
        for thread in threads:
            thread.start()
        try:
            while (done := self.report.shocks["kill"] + self.report.shocks["stop"]) < self.plan.restarts:
                self._wait_for_the_next(done)
                self.shock()
        finally:
            if self.service.process is None or self.service.process.poll() is not None:
                self.books.wanted = 0  # it cannot be started: nobody need wait for it
            for thread in threads:
                thread.join()

    def _wait_for_the_next(self, done: int) -> None:
        """Spread over the run, however slow the machine is."""
        time.sleep(0.5 if self.books.is_done() else self.chance.uniform(0.3, 2 * self.plan.every_s - 0.3))
        share = self.plan.generations * done // self.plan.restarts
        with suppress(AssertionError):
            until(lambda: len(self.books.accepted) >= share, 60)

    def shock(self) -> None:
        """Mostly kill -9; sometimes a stop as an operator does it, or a moment in which nothing moves."""
        kind = self.chance.choices(("kill", "stop", "freeze"), (7, 2, 2))[0]
        self.report.shocks[kind] += 1
        match kind:
            case "kill":
                self.service.kill()
            case "stop":
                self._stop()
            case "freeze":
                self._freeze(self.chance.uniform(0.5, 3.0))
                return
        self._edit("UPDATE providers SET paused_until = 0")  # somebody paid the bill: a minute for each is too long
        if self.report.shocks.total() % 4 == 0:
            self.change_weather()
        self.service.start()
        self.told(f"{sum(self.report.shocks.values())} shocks, {len(self.books.accepted)} accepted")

    def change_weather(self) -> None:
        """Other faults from now on; those of before are counted first."""
        self._count_faults()
        answer = self.provider.spoil(*weather.change(self.chance, self.plan.rare))
        assert answer.status_code == 200, answer.text

    def calm(self) -> None:
        """No more faults; what nobody will ever hear of gets its deadline passed."""
        self._count_faults()
        self.provider.spoil()
        for _ in range(4):
            self._until_nothing_moves()
            if not self._rows(UNFINISHED):
                break
            self.told(f"time passes for {Counter(status for _, status in self._rows(UNFINISHED))}")
            self._let_time_pass()
        with suppress(AssertionError):
            until(lambda: not any(count for (count,) in self._rows(LEFT)), 60)

    def audit(self) -> None:
        """Stop it, and compare what is left with what was promised and what was paid."""
        self._stop()
        found = self._findings()
        if any("no row names the file" in one.text for one in found):
            found = self._findings_after_a_sweep()
        ledger = self.provider.ledger
        self.report.found += [*self.books.found, *found, *self._of_the_log(), *self._unexplained()]
        self.report.ends = Counter(
            {
                (status, code or ""): count
                for status, code, count in self._rows(
                    "SELECT status, error_code, COUNT(*) FROM generations GROUP BY 1, 2"
                )
            }
        )
        self.report.created = sum(create["created"] for create in ledger["creates"])
        self.report.answers, self.report.deleted = self.books.answers, len(self.books.deleted)

    def _findings(self) -> list[Finding]:
        return findings(self.folder, self.provider.ledger, self.books.accepted - self.books.deleted)

    def _findings_after_a_sweep(self) -> list[Finding]:
        """A kill between a file and its row's end, then an end without the file: a start removes it in a minute."""
        before = self.service.log().count("storage_swept")
        self.service.start()
        until(lambda: self.service.log().count("storage_swept") > before, 90)
        self._stop()
        return self._findings()

    def _unexplained(self) -> list[Finding]:
        """A row that nobody asked for: only start images and retried sources come by themselves, and are needed."""
        rows = self._rows("SELECT id, source, retry_of FROM generations")
        needed = {value for _, source, _ in rows for value in _ids(json.loads(source))}
        strangers = [id for id, _, _ in rows if id not in self.books.accepted | needed]
        waited_for = {id for (id,) in self._rows("SELECT id FROM witness WHERE subject = 'deleted'")}
        if len(strangers) > len(waited_for):  # a deleted video leaves its start image behind
            return [Finding(UNTRUE, f"nobody asked for {strangers}")]
        return []

    def _of_the_log(self) -> list[Finding]:
        log = self.service.log()
        errors = [line for line in log.splitlines() if '"level": "error"' in line or "Traceback" in line]
        found = [Finding(UNTRUE, f"the log tells of {len(errors)} errors, first {errors[0][:3000]}")] if errors else []
        return found + ([Finding(LOST, "the log holds a key")] if self.admin in log else [])

    def _customer(self, name: str, pause_s: float) -> Customer:
        """A client with a campaign, a key of its own and an asset."""
        with self._http(self.admin) as admin:
            client = _made(admin.post("/api/v2/clients", json={"name": name}))
            campaign = _made(admin.post("/api/v2/campaigns", json={"name": name, "client_id": client["id"]}))
            key = _made(admin.post("/api/v2/keys", json={"name": name, "client_id": client["id"]}))["key"]
        http = self._http(key)
        asset = _made(http.post("/api/v2/assets", files={"file": ("start.png", png())}))
        chance = random.Random(f"{self.plan.seed} {name}")
        return Customer(name, http, campaign["id"], asset["id"], self.books, chance, pause_s)

    def _http(self, key: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.service.origin, headers=headers, timeout=30, trust_env=False)

    def _stop(self) -> None:
        """SIGTERM; it may take its grace time, and must then have ended well."""
        status = self.service.stop(60)
        if status != 0:
            self.report.found.append(Finding(UNTRUE, f"a stop ended with {status}"))

    def _freeze(self, seconds: float) -> None:
        assert self.service.process is not None
        os.kill(self.service.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.service.process.pid, signal.SIGCONT)

    def _let_time_pass(self) -> None:
        """A quarter of an hour in a moment."""
        self._stop()
        self._edit("UPDATE generations SET due_at = 1 WHERE finished_at IS NULL")
        self._edit("UPDATE generations SET deadline_at = 1 WHERE status IN ('unclear', 'processing')")
        self._edit("UPDATE providers SET paused_until = 0")
        self.service.start()

    def _until_nothing_moves(self) -> None:
        before: list[tuple[Any, ...]] = []
        since = time.monotonic()
        while time.monotonic() < since + self.plan.calm_s:
            now = self._rows(UNFINISHED)
            if not now:
                return
            if now != before:
                before, since = now, time.monotonic()
            time.sleep(0.2)

    def _count_faults(self) -> None:
        faults = httpx.get(f"{self.provider.server.origin}/emulator/faults").json()["faults"]
        self.report.struck.update({kind: 0 for kind in {fault["kind"] for fault in faults}})
        for fault in faults:
            self.report.struck[fault["kind"]] += fault["struck"]

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.folder}/reelhook.db?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(statement).fetchall()

    def _edit(self, statement: str) -> None:
        with closing(sqlite3.connect(self.folder / "reelhook.db", timeout=10)) as connection, connection:
            connection.execute(statement)


def table(report: Report) -> str:
    """The figures, and everything that was found."""
    total = report.ends.total()
    lines = [f"  {status:10} {code:20} {count:6}" for (status, code), count in sorted(report.ends.items())]
    shocks = ", ".join(f"{count} x {kind}" for kind, count in report.shocks.items())
    silent = sorted(kind for kind, count in report.struck.items() if not count)
    lines.insert(0, f"{total} generations and {report.deleted} deleted; {report.created} predictions; {shocks}")
    lines.append(
        f"faults: {report.struck.total()} of {len(report.struck)} kinds; without an occasion: {silent or 'none'}"
    )
    lines.append("answers: " + ", ".join(f"{what}: {count}" for what, count in sorted(report.answers.items())))
    lines.append(f"asked for {report.asked_s:.0f} s, ended after {report.seconds:.0f} s")
    sorts = Counter(one.sort for one in report.found)
    lines.append(
        ", ".join(f"{sort}: {sorts[sort]}" for sort in sorted({LOST, "paid twice", STUCK, BACKWARDS} | set(sorts)))
    )
    return "\n".join([*lines, *(f"{one.sort}: {one.text}" for one in report.found)])


def _ids(source: dict[str, Any]) -> list[str]:
    return [
        value for one in (source, source.get("end_image") or {}) for value in one.values() if isinstance(value, str)
    ]


def _made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made
