"""Those who ask while everything breaks: each request is sent again under its key until it is answered."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from auditor import UNTRUE, Finding

AGAIN = {429, 503, 507}
PATIENCE_S = 120.0
REMEMBERED = 60  # of so many of the latest generations something may still be wanted


@dataclass
class Books:
    """What customers were promised, all together."""

    wanted: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    accepted: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)  # accepted with an address that is to be told
    answers: Counter[str] = field(default_factory=Counter)
    found: list[Finding] = field(default_factory=list)

    def is_done(self) -> bool:
        return len(self.accepted) >= self.wanted

    def note(self, what: str, answer: httpx.Response) -> None:
        with self.lock:
            self.answers[f"{what} {answer.status_code}"] += 1

    def accuse(self, text: str) -> None:
        with self.lock:
            self.found.append(Finding(UNTRUE, text))

    def unexplained(self, rows: Callable[[str], list[tuple[Any, ...]]]) -> list[Finding]:
        """A row that nobody asked for: only start images and retried sources come by themselves, and are needed."""
        found = rows("SELECT id, source, retry_of FROM generations")
        needed = {value for _, source, _ in found for value in _ids(json.loads(source))}
        strangers = [id for id, _, _ in found if id not in self.accepted | needed]
        waited_for = {id for (id,) in rows("SELECT id FROM witness WHERE subject = 'deleted'")}
        if len(strangers) > len(waited_for):  # a deleted video leaves its start image behind
            return [Finding(UNTRUE, f"nobody asked for {strangers}")]
        return []


def _ids(source: dict[str, Any]) -> list[str]:
    return [
        value for one in (source, source.get("end_image") or {}) for value in one.values() if isinstance(value, str)
    ]


@dataclass
class Customer:
    """One client of the service with a key, a campaign and an asset; works in a thread of its own."""

    name: str
    http: httpx.Client
    campaign_id: str
    asset_id: str
    books: Books
    chance: random.Random
    pause_s: float
    own_url: str
    is_limited: bool  # it has a budget
    made: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    def work(self) -> None:
        """Ask, and change one's mind, until all together have what they wanted."""
        wishes: dict[Callable[[], None], int] = {
            self.want_image: 40,
            self.want_copies: 8,
            self.want_video: 12,
            self.want_from_asset: 6,
            self.want_from_generated: 16,
            self.cancel_one: 8,
            self.cancel_at_a_bad_time: 8,
            self.retry_one: 6,
            self.delete_one: 4,
        }
        while not self.books.is_done():
            self.chance.choices([*wishes], [*wishes.values()])[0]()
            time.sleep(self.chance.uniform(0, 2 * self.pause_s))  # a customer thinks

    def want_image(self) -> None:
        self.ask("image")

    def want_copies(self) -> None:
        self.ask("image", copies=self.chance.randint(1, 3))

    def want_video(self) -> None:
        self.ask("video")

    def want_from_asset(self) -> None:
        self.ask(self.chance.choice(("image", "video")), asset_id=self.asset_id)

    def want_from_generated(self) -> None:
        if one := self.recent():
            more = {"frame": "first"} if one["kind"] == "video" and self.chance.random() < 0.5 else {}
            self.ask(self.chance.choice(("image", "video")), **{f"{one['kind']}_id": one["id"]}, **more)

    def ask(self, kind: str, **wanted: Any) -> None:
        """202, or 404 and 422 when the source is gone or failed; 402 when it does not fit into a budget."""
        body = {"campaign_id": self.campaign_id, "prompt": f"a fox in the snow, {self.name} {self.asked}", **wanted}
        if own := self.chance.random() < 0.3:
            body["webhook_url"] = self.own_url
        accepted = self.accept(self.post(f"ask for {kind}", f"/api/v2/generate/{kind}", body, self.fitting(404, 422)))
        self.books.own.update(accepted if own else ())

    def fitting(self, *others: int) -> set[int]:
        """What a request that costs something may be answered."""
        return {202, *others, *((402,) if self.is_limited else ())}

    def cancel_one(self) -> None:
        if one := self.recent():
            self.post("cancel", f"/api/v2/generations/{one['id']}/cancel", {}, {200, 202, 404, 409})

    def cancel_at_a_bad_time(self) -> None:
        """Right after it was accepted, when it has begun, at its end, or again and again."""
        before = len(self.made)
        self.want_image()
        if len(self.made) == before:
            return
        path = f"/api/v2/generations/{self.made[-1]['id']}"
        waits = self.chance.choice(((0.0,), (None,), (0.2,), (0.05,) * 6))
        for seconds in waits:
            if seconds is None:
                self._wait_until_it_runs(path)
            else:
                time.sleep(seconds)  # the bad time, drawn by chance
            self.post("cancel at a bad time", f"{path}/cancel", {}, {200, 202, 404, 409})

    def _wait_until_it_runs(self, path: str) -> None:
        for _ in range(20):
            answer = self.send("look", lambda: self.http.get(path), {200, 404})
            if answer.status_code == 404 or answer.json()["stage"] not in ("queued", "submitting", "unclear"):
                return
            time.sleep(0.05)  # between two looks, of which there are 20 at most

    def retry_one(self) -> None:
        for one in self.chance.sample(self.made[-REMEMBERED:], min(5, len(self.made))):
            answer = self.post("retry", f"/api/v2/generations/{one['id']}/retry", {}, self.fitting(404, 409))
            if accepted := self.accept(answer):
                self.books.own.update(accepted if one["id"] in self.books.own else ())
                return

    def delete_one(self) -> None:
        """Another may have been faster, or a request of ours whose answer was lost: then it is 404."""
        if one := self.recent():
            path = f"/api/v2/generations/{one['id']}"
            answer = self.send("delete", lambda: self.http.delete(path), {204, 404, 409})
            if answer.status_code in (204, 404):
                self.books.deleted.add(one["id"])

    def recent(self) -> dict[str, Any] | None:
        return self.chance.choice(self.made[-REMEMBERED:]) if self.made else None

    def post(self, what: str, path: str, body: dict[str, Any], expected: set[int]) -> httpx.Response:
        """Under a key; now and then once more, which must give the same answer. A refusal is not kept."""
        self.asked += 1
        headers = {"Idempotency-Key": f"{self.name}-{self.asked}"}

        def once() -> httpx.Response:
            return self.http.post(path, json=body, headers=headers)

        answer = self.send(what, once, expected)
        if self.chance.random() < 0.1:
            again = self.send(f"repeat {what}", once, expected)
            if answer.status_code < 300 and again.content != answer.content:
                self.books.accuse(f"{path} was answered {answer.text}, and under the same key {again.text}")
            elif answer.status_code == 402:
                return again
        return answer

    def send(self, what: str, once: Callable[[], httpx.Response], expected: set[int]) -> httpx.Response:
        """Until there is an answer that is not a wish to wait. Raises TimeoutError."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                answer = once()
            except httpx.TransportError:
                time.sleep(0.1)  # between two tries: the service is down
                continue
            is_running = answer.status_code == 409 and answer.json()["code"] == "idempotency_key_running"
            if answer.status_code not in AGAIN and not is_running:
                self.books.note(what, answer)
                if answer.status_code not in expected:
                    self.books.accuse(f"{what} was answered {answer.status_code}: {answer.text}")
                return answer
            time.sleep(0.3)  # between two tries, as a good client waits
        raise TimeoutError(f"{what}: the service never came back")

    def accept(self, answer: httpx.Response) -> list[str]:
        """The generations a 202 promises."""
        if answer.status_code != 202:
            return []
        made = answer.json()
        items = made.get("items", [made])
        self.made += items
        with self.books.lock:
            self.books.accepted.update(one["id"] for one in items)
        return [one["id"] for one in items]
