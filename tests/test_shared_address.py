"""Behind a proxy everybody has one address: somebody who guesses keys there locks nobody out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from api_service import Service, running
from webserving import Answer, until

from backend.db import keys
from backend.db.connection import Tx
from backend.manage.keys import fingerprint
from backend.web.callers import keyring as keyrings
from backend.web.callers.attempts import LIMIT

pytestmark = [pytest.mark.story, pytest.mark.hazard(58), pytest.mark.timeout(180)]

STORM = 200
_addresses = count(1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("shared"), trusted_proxies="127.0.0.0/8") as found:
        yield found


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are compared by bcrypt."""
    compared: list[str] = []
    real = keyrings.matches
    monkeypatch.setattr(keyrings, "matches", lambda key, against: compared.append(key) or real(key, against))
    return compared


@dataclass
class Place:
    """An address as the proxy tells it."""

    service: Service
    address: str

    def show(self, key: str, address: str | None = None) -> Answer:
        headers = {"X-Forwarded-For": address or self.address}
        return self.service.ask("GET", "/api/v2/campaigns", key=key, headers=headers)


@pytest.fixture
def place(service: Service) -> Place:
    return Place(service, new_address())


def new_address() -> str:
    number = next(_addresses)
    return f"203.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def strange(_owner: str, number: int) -> str:
    return f"sk_{number:05d}{'x' * 38}"


def near(owner: str, number: int) -> str:
    """The public prefix of a key that exists, and a wrong secret."""
    return f"{owner[:15]}{number:05d}{'x' * 26}"


def forget_fingerprint(service: Service, id: str) -> None:
    async def work(tx: Tx) -> None:
        await tx.run("UPDATE api_keys SET fingerprint = NULL WHERE id = :id", id=id)

    service.run(service.ctx.db.write(work))


@pytest.mark.parametrize("guess", [strange, near])
@pytest.mark.parametrize("many", [False, True], ids=["one address", "many addresses"])
def test_a_good_key_is_let_in_while_hundreds_of_bad_ones_are_shown(
    place: Place, comparisons: list[str], guess: Callable[[str, int], str], many: bool
) -> None:
    owner, other = place.service.key(None)[0], place.service.key(None)[0]
    with ThreadPoolExecutor(40) as pool:

        def storm(number: int) -> Answer:
            return place.show(guess(owner, number), new_address() if many else None)

        bad = [pool.submit(storm, number) for number in range(STORM)]
        until(lambda: sum(each.done() for each in bad) > LIMIT, 60)
        assert place.show(other).status == 200, "somebody else's key, for the first time, from the same address"
        assert place.show(owner).status == 200, "the very key that is guessed at"
        statuses = [each.result().status for each in bad]
    assert set(statuses) == ({401} if many else {401, 429})
    assert statuses.count(401) == (STORM if many else LIMIT)
    assert {owner, other} <= set(comparisons) and len(comparisons) < STORM / 2


def test_two_thousand_bad_keys_are_forgotten_by_nobody_but_their_address(place: Place) -> None:
    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda number: place.show(strange("", number)).status, range(2000)))
    assert statuses.count(401) == LIMIT and statuses.count(429) == 2000 - LIMIT
    for _ in range(3):
        assert place.show(place.service.key(None)[0]).status == 200
    assert place.show(strange("", 1)).status == 429


def test_a_key_of_an_earlier_version_is_let_in_beside_those_who_guess_at_it(
    place: Place, comparisons: list[str]
) -> None:
    (owner, id), other = place.service.key(None), place.service.key(None)[0]
    forget_fingerprint(place.service, id)
    with ThreadPoolExecutor(40) as pool:
        bad = [pool.submit(place.show, near(owner, number)) for number in range(STORM)]
        until(lambda: sum(each.done() for each in bad) > LIMIT, 60)
        assert place.show(other).status == 200
        until(lambda: place.show(owner).status == 200, 60)  # 503 until it finds a place
        assert {each.result().status for each in bad} <= {401, 429, 503}
    until(lambda: row_of(place.service, id).fingerprint == fingerprint(owner))
    comparisons.clear()
    assert [place.show(near(owner, number)).status for number in range(5)] == [429] * 5
    assert comparisons == [], "from its first use on it is known by its fingerprint"


def row_of(service: Service, id: str) -> keys.ApiKey:
    found = service.run(service.ctx.db.read(lambda tx: keys.get(tx, id)))
    assert found is not None
    return found


def test_a_retired_key_that_is_shown_for_ever_costs_nothing(place: Place, comparisons: list[str]) -> None:
    text, id = place.service.key(None)
    assert place.show(text).status == 200
    assert place.service.ask("DELETE", f"/api/v2/keys/{id}").status == 204
    statuses = [place.show(text).status for _ in range(LIMIT + 10)]
    assert set(statuses) == {401, 429} and statuses[-5:] == [429] * 5
    assert comparisons.count(text) <= 1 + LIMIT
    comparisons.clear()
    assert place.show(text).status == 429 and comparisons == []


@pytest.mark.hazard(30)
@pytest.mark.parametrize("failures", [0, LIMIT], ids=["first failures", "after the limit"])
def test_which_prefixes_exist_shows_neither_in_the_answer_nor_in_its_time(place: Place, failures: int) -> None:
    owner = place.service.key(None)[0]
    for number in range(failures):
        place.show(strange("", number))
    times: dict[Callable[[str, int], str], list[float]] = {strange: [], near: []}
    told = set()
    for number in range(8):
        for guess, spent in times.items():
            began = time.perf_counter()
            answer = place.show(guess(owner, 1000 + number), None if failures else new_address())
            spent.append(time.perf_counter() - began)
            told.add((answer.status, answer.json()["detail"], answer.json()["code"]))
    assert len(told) == 1
    assert 0.5 < statistics.median(times[strange]) / statistics.median(times[near]) < 2


def test_every_new_key_has_its_fingerprint(service: Service, tmp_path: Path) -> None:
    text, id = service.key(None)
    assert row_of(service, id).fingerprint == fingerprint(text)
    made = service.ask("POST", "/api/v2/keys", {"name": "k", "admin": True}).json()
    assert row_of(service, made["id"]).fingerprint == fingerprint(made["key"])
    assert "fingerprint" not in made
