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
from auditor import LOST, UNTRUE, Finding, findings, witness
from emulating import TINY, Provider, emulating, png, until
from gateway import Gateway, new_gateway

from backend.cli.processes import answer_of
from storms import money, told, weather
from storms.customers import Books, Customer
from storms.enemy import Enemy
from storms.report import Report
from storms.told import Told

PROVIDER = replace(TINY, image_s=0.2, video_s=0.8, webhook_delays_s=(0.5,) * 40)  # a restart takes seconds
SETTINGS = {
    "AUTH_MODE": "keys",
    "MAX_IN_FLIGHT": "2000",
    "MAX_OUTPUT_MB": "5",
    "WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
}
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


def run(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Report:
    """The whole run in a new folder; `say` hears of its progress."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reelhook-chaos-") as place, emulating(PROVIDER) as provider:
        service = new_gateway(Path(place), provider, **SETTINGS)
        storm = Storm(plan, Path(place), provider, service, random.Random(plan.seed), say, Told(service.origin))
        try:
            storm.begin()
            storm.rage()
            storm.report.asked_s = time.monotonic() - began
            storm.calm()
            storm.audit()
        finally:
            service.abandon()
            storm.told.closing.close()
            for face in (service, *(customer.http for customer in [*storm.customers, storm.enemy] if customer)):
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
    say: Callable[[str], None]
    told: Told
    books: Books = field(default_factory=lambda: Books(0))
    report: Report = field(default_factory=Report)
    customers: list[Customer] = field(default_factory=list)
    enemy: Enemy = field(default=None)  # type: ignore[assignment]
    admin: str = ""

    def begin(self) -> None:
        """A key, the first start, witnesses, and customers with all they need."""
        made = answer_of(["keys", "create", "--name", "chaos", "--admin", "--json"], self.folder, self.service.settings)
        self.admin = json.loads(made)["key"]
        self.service.start()
        witness(self.folder)
        self._edit(told.WITNESS + money.WITNESS)
        self.told.listen(self.admin)
        self.books.wanted = self.plan.generations
        pause_s = CUSTOMERS * self.plan.restarts * self.plan.every_s / self.plan.generations
        self.customers = [self._customer(number, pause_s) for number in range(CUSTOMERS)]
        self.enemy = Enemy(self._http(self._key("enemy")[0]), self.books, random.Random(f"{self.plan.seed} enemy"))
        self.change_weather()

    def rage(self) -> None:
        """Customers in threads of their own, and one shock after the other until both are done."""
        threads = [threading.Thread(target=one.work, name=one.name) for one in [*self.customers, self.enemy]]
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
        pause_s = 0.5 if self.books.is_done() else self.chance.uniform(0.3, 2 * self.plan.every_s - 0.3)
        time.sleep(pause_s)  # the moment of a shock is drawn by chance
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
        self._edit(told.ALL_DUE)
        if self.report.shocks.total() % 4 == 0:
            self.change_weather()
        self.service.start()
        self.say(f"{sum(self.report.shocks.values())} shocks, {len(self.books.accepted)} accepted")

    def change_weather(self) -> None:
        """Other faults from now on; those of before are counted first."""
        self._count_faults()
        answer = self.provider.spoil(*weather.change(self.chance, self.plan.rare))
        assert answer.status_code == 200, answer.text

    def calm(self) -> None:
        """No more faults; what nobody will ever hear of gets its deadline passed, and everybody is told the rest."""
        self._count_faults()
        self.provider.spoil()
        self.told.calm()
        for _ in range(4):
            self._until_nothing_moves()
            if not self._rows(UNFINISHED):
                break
            self.say(f"time passes for {Counter(status for _, status in self._rows(UNFINISHED))}")
            self._let_time_pass()
        with suppress(AssertionError):
            until(lambda: not any(count for (count,) in self._rows(LEFT)), 60)
        if waiting := self._rows(told.PENDING):
            self.say(f"time passes for {len(waiting)} webhooks")
            self._let_time_pass()
        self.told.wait(self._rows)

    def audit(self) -> None:
        """Stop it, and compare what is left with what was promised and what was paid."""
        self._stop()
        found = self._findings()
        if any("no row names the file" in one.text for one in found):
            found = self._findings_after_a_sweep()
        ledger = self.provider.ledger
        self.report.found += [*self.books.found, *found, *self._of_the_log(), *self.books.unexplained(self._rows)]
        self.report.found += [*self.told.findings(self._rows, self.books.own), *money.findings(self._rows)]
        self.report.told, self.report.moods = self.told.figures(self._rows), self.told.moods()
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

    def _of_the_log(self) -> list[Finding]:
        log = self.service.log()
        errors = [line for line in log.splitlines() if '"level": "error"' in line or "Traceback" in line]
        found = [Finding(UNTRUE, f"the log tells of {len(errors)} errors, first {errors[0][:3000]}")] if errors else []
        secrets = [self.admin, *(secret for box in self.told.mailboxes for secret in box.secrets.values())]
        return found + [Finding(LOST, "the log holds a secret") for secret in secrets if secret in log]

    def _customer(self, number: int, pause_s: float) -> Customer:
        """A client with a campaign, a key of its own, an asset, and somebody who is told; two have budgets."""
        name, chance = f"customer {number}", random.Random(f"{self.plan.seed} customer {number}")
        usd = round(self.plan.generations / CUSTOMERS * money.USD_EACH, 2)
        budgets = [{"budget_usd": usd} if number == limited else {} for limited in (0, 1)]
        key, client = self._key(name, **budgets[0])
        with self._http(self.admin) as admin:
            wanted = {"name": name, "client_id": client}
            campaign = _made(admin.post("/api/v2/campaigns", json={**wanted, **budgets[1]}))["id"]
        http = self._http(key)
        asset = _made(http.post("/api/v2/assets", files={"file": ("start.png", png())}))["id"]
        self.told.listen(key, client)
        own_url = self._mailbox(http, client, chance)
        return Customer(name, http, campaign, asset, self.books, chance, pause_s, own_url, any(budgets))

    def _key(self, name: str, **more: Any) -> tuple[str, str]:
        """A new client's key, and its id."""
        with self._http(self.admin) as admin:
            client = _made(admin.post("/api/v2/clients", json={"name": name, **more}))["id"]
            key = _made(admin.post("/api/v2/keys", json={"name": name, "client_id": client}))["key"]
        return key, client

    def _mailbox(self, http: httpx.Client, client_id: str, chance: random.Random) -> str:
        """An endpoint for everything; the address that requests may carry."""
        box = self.told.receive(client_id, random.Random(chance.random()))
        made = _made(http.post("/api/v2/webhook-endpoints", json={"url": box.receiver.origin + told.ENDPOINT}))
        own = http.get("/api/v2/webhook-secret").json()
        box.secrets = {told.ENDPOINT: made["secret"], told.OWN: own["secret"]}
        return box.receiver.origin + told.OWN

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
        time.sleep(seconds)  # the length of the freeze is the shock
        os.kill(self.service.process.pid, signal.SIGCONT)

    def _let_time_pass(self) -> None:
        """A quarter of an hour in a moment."""
        self._stop()
        self._edit("UPDATE generations SET due_at = 1 WHERE finished_at IS NULL")
        self._edit("UPDATE generations SET deadline_at = 1 WHERE status IN ('unclear', 'processing')")
        self._edit("UPDATE providers SET paused_until = 0")
        self._edit(told.ALL_DUE)
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
            time.sleep(0.2)  # between two looks: that nothing moves for a while is what is waited for

    def _count_faults(self) -> None:
        faults = self.provider.control("GET", "faults").json()["faults"]
        self.report.struck.update({kind: 0 for kind in {fault["kind"] for fault in faults}})
        for fault in faults:
            self.report.struck[fault["kind"]] += fault["struck"]

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.folder}/reelhook.db?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(statement).fetchall()

    def _edit(self, statement: str) -> None:
        with closing(sqlite3.connect(self.folder / "reelhook.db", timeout=10)) as connection, connection:
            connection.executescript(statement)


def _made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made
