"""Random lives: clients, workers, the provider, the clock and kill -9 take turns; after each turn all is audited."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from machine.double import ANSWERS, ENDS
from machine.world import UNRELEASED, Hold, House, World, housing

from backend.upkeep import orphans

pytestmark = pytest.mark.story

SECONDS = float(os.environ.get("MACHINE_S", "60"))
SEED = int(os.environ.get("MACHINE_SEED", "1"))
ALIVE = 8  # generations in one life, about: more would hardly ever meet
PICK = st.integers(0, 1 << 10)  # one of however many there are by then
CUTS = st.one_of(st.none(), st.none(), st.integers(0, 14))  # after so many crossings the power goes
PLANS = st.sampled_from(("taken", "taken", "taken", *ANSWERS))  # what a create meets, if it comes to one
JUMPS_S = st.sampled_from((1, 11, 35, 121, 1300, 5000, 90_000))
SETTINGS = settings(
    max_examples=10,
    stateful_step_count=40,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[*HealthCheck],
)


class Lives(RuleBasedStateMachine):
    """What anybody may do at any time. Nothing that is said here may ever lose, double or damage anything."""

    house: House

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="reelhook-machine-"))
        self.world = World(self.house, self.folder)
        self.world.open()
        self.requests: list[tuple[str, dict[str, Any], dict[str, str], Any]] = []
        self.holds: list[Hold] = []

    def teardown(self) -> None:
        try:
            self.world.end()
            self.check(finished=True)
        finally:
            self.world.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def check(self, *, finished: bool = False) -> None:
        found = self.world.findings(finished=finished)
        assert not found, found

    @property
    def ids(self) -> list[str]:
        return sorted(self.world.accepted)

    # clients

    @precondition(lambda self: len(self.ids) < ALIVE)
    @rule(kind=st.sampled_from(("image", "image", "image", "video")), copies=st.sampled_from((None, None, 2)), cut=CUTS)
    def somebody_asks(self, kind: str, copies: int | None, cut: int | None) -> None:
        body = {"prompt": f"number {len(self.requests)}"} | ({"copies": copies} if copies else {})
        self.ask(f"/api/v2/generate/{kind}", self.world.wanted(**body), cut)

    @precondition(lambda self: 0 < len(self.ids) < ALIVE)
    @rule(pick=PICK, cut=CUTS)
    def somebody_asks_for_more_of_it(self, pick: int, cut: int | None) -> None:
        kind = self.world.kind(id := self.ids[pick % len(self.ids)])
        self.ask("/api/v2/generate/image", self.world.wanted(**{f"{kind}_id": id}), cut, {202, 404, 422})

    @precondition(lambda self: self.ids)
    @rule(pick=PICK, cut=CUTS)
    def somebody_retries(self, pick: int, cut: int | None) -> None:
        self.ask(f"/api/v2/generations/{self.ids[pick % len(self.ids)]}/retry", {}, cut, {202, 409})

    @precondition(lambda self: self.ids)
    @rule(pick=PICK, cut=CUTS)
    def somebody_cancels(self, pick: int, cut: int | None) -> None:
        self.ask(f"/api/v2/generations/{self.ids[pick % len(self.ids)]}/cancel", {}, cut, {200, 202, 409})

    @precondition(lambda self: self.requests)
    @rule(pick=PICK)
    def somebody_repeats_a_request(self, pick: int) -> None:
        path, body, headers, answer = self.requests[pick % len(self.requests)]
        if answer.is_success:
            assert self.world.post(path, body, **headers).content == answer.content
        self.check()

    @precondition(lambda self: self.ids)
    @rule(pick=PICK)
    def somebody_deletes(self, pick: int) -> None:
        id = self.ids[pick % len(self.ids)]
        was = self.world.status(id)
        answer = self.world.http.delete(f"/api/v2/generations/{id}")
        assert answer.status_code == 409 or (answer.status_code == 204 and was in ("completed", "failed", "canceled"))
        if answer.status_code == 204:
            self.world.accepted.discard(id)
            self.world.deleted.add(id)
        self.check()

    def ask(self, path: str, body: dict[str, Any], cut: int | None, expected: set[int] = {202}) -> None:  # noqa: B006
        """A request, sent again under its key when the power went before the answer."""
        headers = {"Idempotency-Key": f"key{len(self.requests)}"}
        self.world.mains.left = cut
        answer = self.world.post(path, body, **headers)
        if not self.world.mains.on:
            self.world.kill()
            self.check()
            answer = self.world.post(path, body, **headers)
        self.world.mains.left = None
        assert answer.status_code in expected, answer.text
        self.requests.append((path, body, headers, answer))
        self.check()

    # the provider

    @rule(status=st.sampled_from((500, 502, 404, 429)), times=st.integers(1, 5))
    def the_provider_has_trouble_when_it_is_asked(self, status: int, times: int) -> None:
        self.world.double.troubles += [status] * times

    @precondition(lambda self: self.world.double.predictions)
    @rule(pick=PICK, status=st.sampled_from(("processing", "resuming", "succeeded", "succeeded", *ENDS)))
    def the_provider_goes_on(self, pick: int, status: str) -> None:
        predictions = self.world.double.predictions
        self.world.double.progress(predictions[pick % len(predictions)], status)

    @precondition(lambda self: self.world.double.predictions)
    @rule(pick=PICK, file_only=st.booleans())
    def the_provider_forgets(self, pick: int, file_only: bool) -> None:
        predictions = self.world.double.predictions
        prediction = predictions[pick % len(predictions)]
        prediction.file, prediction.known = None, prediction.known and file_only

    @precondition(lambda self: self.world.double.held)
    @rule()
    def the_provider_answers_what_it_held_up(self) -> None:
        self.world.answer()
        self.check()

    @precondition(lambda self: self.world.double.messages)
    @rule(pick=PICK, cut=CUTS)
    def a_webhook_arrives(self, pick: int, cut: int | None) -> None:
        """Any of all that were ever written: late, early, out of order, again."""
        messages = self.world.double.messages
        self.world.mains.left = cut
        status = self.world.send(messages[pick % len(messages)])
        assert status in (200, 404) or not self.world.mains.on
        self.world.mains.left = None
        self.world.revive()
        self.check()

    @precondition(lambda self: self.world.double.messages)
    @rule(pick=PICK, other=PICK)
    def a_webhook_arrives_that_is_forged_or_about_another(self, pick: int, other: int) -> None:
        """The account has one secret: whoever has a prediction there could send its end to another's address."""
        messages, before = self.world.double.messages, self.world.rows()
        message, elsewhere = messages[pick % len(messages)], messages[other % len(messages)].url
        assert self.world.send(message, secret=b"x" * 32) == 401
        assert self.world.send(message, url=message.url + "x") == 404
        assert self.world.rows() == before
        assert self.world.send(message, url=elsewhere) in (200, 404)
        self.check()

    # the service

    @precondition(lambda self: self.world.due())
    @rule(pick=PICK, cut=CUTS, plan=PLANS)
    def a_worker_takes_a_row_and_works(self, pick: int, cut: int | None, plan: str) -> None:
        due = self.world.due()
        self.world.mains.left, self.world.double.plan = cut, plan
        for hold in self.world.take(due[pick % len(due)]):
            self.world.work(hold)
        self.world.mains.left = None
        self.check()

    @precondition(lambda self: self.world.due())
    @rule(pick=PICK)
    def a_worker_takes_a_row_and_is_held_up(self, pick: int) -> None:
        due = self.world.due()
        self.holds += self.world.take(due[pick % len(due)])
        self.check()

    @precondition(lambda self: self.holds)
    @rule(pick=PICK, cut=CUTS, plan=PLANS)
    def it_goes_on_with_the_row_it_took_then(self, pick: int, cut: int | None, plan: str) -> None:
        hold = self.holds.pop(pick % len(self.holds))
        self.world.mains.left, self.world.double.plan = cut, plan
        self.world.work(hold)
        self.world.mains.left = None
        self.check()

    @rule(cut=CUTS)
    def what_webhooks_said_is_believed(self, cut: int | None) -> None:
        self.world.mains.left = cut
        self.world.believe()
        self.world.mains.left = None
        self.check()

    @precondition(lambda self: self.world.rows(UNRELEASED))
    @rule(cut=CUTS)
    def what_waited_for_one_that_has_ended_is_released(self, cut: int | None) -> None:
        self.world.mains.left = cut
        self.world.release()
        self.world.mains.left = None
        self.check()

    @rule()
    def it_is_tidied_up(self) -> None:
        self.world.tidy()
        self.check()

    @rule(seconds=JUMPS_S)
    def time_passes(self, seconds: int) -> None:
        self.world.clock.forward(seconds)

    @rule()
    def the_power_goes(self) -> None:
        self.world.kill()
        self.check()


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(orphans, "SETTLE_S", 0)
    with housing() as house:
        yield house


@pytest.mark.timeout(SECONDS + 900)  # the last ten lives, and finding the shortest one that goes wrong
def test_no_life_loses_doubles_or_damages_anything(house: House) -> None:
    Lives.house = house
    end, number = time.monotonic() + SECONDS, SEED
    while time.monotonic() < end:
        run_state_machine_as_test(seed(number)(type(f"LivesOfSeed{number}", (Lives,), {})), settings=SETTINGS)
        number += 1
