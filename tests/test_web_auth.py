from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network

import bcrypt
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from webserving import KEY, OTHER_KEY, Rows, ask, make_app, make_rows, make_site, serve

from backend.core.errors import TooManyRequests, Unauthorized
from backend.web.callers import keyring as keyrings
from backend.web.callers import peers
from backend.web.callers.attempts import Attempts
from backend.web.callers.keyring import Keyring
from backend.web.calls import auth
from backend.web.calls.operation import Call, Operation, operation

OPERATIONS: list[Operation] = []


@operation("GET", "/api/v2/me", answers={200: None}, into=OPERATIONS)
async def show_me(call: Call) -> Response:
    """Say who asks."""
    return JSONResponse({"key_id": call.who.key_id, "client_id": call.who.client_id, "admin": call.who.admin})


@pytest.fixture
def rows() -> Rows:
    return make_rows()


@pytest.fixture
def port(rows: Rows) -> Iterator[int]:
    with serve(make_app(make_site(rows), OPERATIONS)) as found:
        yield found


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {KEY}"},
        {"X-API-Key": KEY},
        {"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"},
    ],
)
def test_a_key_is_taken_by_either_header(port: int, headers: dict[str, str]) -> None:
    assert ask(port, "GET", "/api/v2/me", headers=headers).json() == {
        "key_id": "id-of-a",
        "client_id": "client-a",
        "admin": False,
    }


def test_every_way_to_say_who_asks_is_described_and_taken(port: int) -> None:
    schemes = ask(port, "GET", "/openapi.json").json()["components"]["securitySchemes"]
    assert set(schemes) == {way.name for way in auth.WAYS} | {"signedUrl"}
    for way in auth.WAYS:
        scheme = schemes[way.name]
        header = {scheme["name"]: KEY} if scheme["type"] == "apiKey" else {"Authorization": f"{scheme['scheme']} {KEY}"}
        assert ask(port, "GET", "/api/v2/me", headers=header).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY} {KEY}"},
        {"Authorization": f"Bearer {OTHER_KEY}"},
        {"Authorization": f"Bearer {KEY[:-1]}b"},
        {"Authorization": "Bearer sk_" + "\u00e9" * 43},
        {"Authorization": "Bearer " + "x" * 60_000},
        {"X-API-Key": ""},
        {"X-API-Key": "null"},
        {"X-API-Key": OTHER_KEY, "Authorization": f"Bearer {KEY}"},
    ],
)
def test_anything_else_is_401_with_a_challenge(port: int, headers: dict[str, str]) -> None:
    answer = ask(port, "GET", "/api/v2/me", headers=headers)
    assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "'Authorization: Bearer sk_...'" in answer.json()["detail"]


def test_two_authorization_headers_are_401(port: int) -> None:
    from webserving import raw

    line = f"Authorization: Bearer {KEY}\r\n"
    got = raw(port, f"GET /api/v2/me HTTP/1.1\r\nHost: x\r\n{line}{line}Connection: close\r\n\r\n".encode())
    assert b" 401 " in got.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "hash_",
    [
        "",
        "notahash",
        "$2b$99$" + "a" * 53,
        "$2b$03$" + "a" * 53,
        "$2b$31$" + "a" * 53,
        "0" * 64,
        bcrypt.hashpw(KEY.encode(), bcrypt.gensalt(4)).decode()[:-1],
        bcrypt.hashpw(KEY.encode(), bcrypt.gensalt(4)).decode() + "\n",
        None,
    ],
    ids=["empty", "word", "cost 99", "cost 3", "cost 31", "hexadecimal", "cut", "line end", "none"],
)
def test_a_row_without_a_real_hash_is_401_for_that_key_alone(port: int, rows: Rows, hash_: str | None) -> None:
    rows.add(OTHER_KEY)
    object.__setattr__(rows.by_prefix[OTHER_KEY[3:15]], "hash", hash_)
    assert ask(port, "GET", "/api/v2/me", key=OTHER_KEY).status == 401
    assert ask(port, "GET", "/api/v2/me", key=KEY).status == 200


@pytest.mark.parametrize("change", [{"revoked_at": 1}, {"expires_at": 1}])
def test_a_revoked_or_expired_key_dies_at_once(port: int, rows: Rows, change: dict[str, int]) -> None:
    assert ask(port, "GET", "/api/v2/me", key=KEY).status == 200
    rows.by_prefix[KEY[3:15]] = replace(rows.by_prefix[KEY[3:15]], **change)
    assert ask(port, "GET", "/api/v2/me", key=KEY).status == 401


def test_a_key_whose_hash_was_replaced_dies_at_once(port: int, rows: Rows) -> None:
    assert ask(port, "GET", "/api/v2/me", key=KEY).status == 200
    rows.add(KEY, hash=bcrypt.hashpw(b"another", bcrypt.gensalt(4)).decode())
    assert ask(port, "GET", "/api/v2/me", key=KEY).status == 401


@pytest.mark.timeout(10)
def test_a_row_with_an_absurd_cost_keeps_no_core_busy() -> None:
    assert not keyrings.matches(KEY, "$2b$31$" + "." * 53)


def test_guessing_is_stopped_by_address_but_a_known_key_goes_on(port: int, rows: Rows) -> None:
    assert ask(port, "GET", "/api/v2/me", key=KEY).status == 200
    statuses = [ask(port, "GET", "/api/v2/me", key=f"sk_{n:043d}").status for n in range(25)]
    assert statuses == [401] * 20 + [429] * 5
    stopped = ask(port, "GET", "/api/v2/me", key="sk_" + "9" * 43)
    assert 1 <= int(stopped.headers["retry-after"]) <= 60
    assert ask(port, "GET", "/api/v2/me", key=KEY).status == 200
    rows.add(OTHER_KEY)
    assert ask(port, "GET", "/api/v2/me", key=OTHER_KEY).status == 200  # never seen before, from this address
    assert ask(port, "GET", "/api/v2/me", key=OTHER_KEY[:-1] + "d").status == 429


def test_a_rotating_forwarded_for_does_not_help_to_guess(port: int) -> None:
    statuses = [
        ask(port, "GET", "/api/v2/me", key=f"sk_{n:043d}", headers={"X-Forwarded-For": f"1.2.3.{n}"}).status
        for n in range(30)
    ]
    assert statuses.count(429) == 10


def test_a_missing_key_is_no_guess(port: int) -> None:
    assert {ask(port, "GET", "/api/v2/me").status for _ in range(30)} == {401}


def test_a_flood_of_bad_keys_leaves_a_good_one_fast(rows: Rows) -> None:
    rows.add(KEY, hash=bcrypt.hashpw(KEY.encode(), bcrypt.gensalt(10)).decode())
    site = make_site(rows, attempts=Attempts(limit=1000))
    site.keyring._dummy = "$2b$10$" + "." * 53
    with serve(make_app(site, OPERATIONS)) as port, ThreadPoolExecutor(40) as pool:
        assert ask(port, "GET", "/api/v2/me", key=KEY).status == 200
        bad = [pool.submit(ask, port, "GET", "/api/v2/me", key=f"sk_{n:043d}") for n in range(100)]
        times = []
        for _ in range(20):
            began = time.perf_counter()
            assert ask(port, "GET", "/api/v2/me", key=KEY).status == 200
            times.append(time.perf_counter() - began)
        assert {future.result().status for future in bad} <= {401, 503}
    assert sorted(times)[-2] < 0.5


def make_keyring(rows: Rows, limit: int = 1000, cost: int = 4) -> Keyring:
    return Keyring(rows.find, lambda: 1000, cost=cost, attempts=Attempts(limit))


async def test_a_known_key_is_compared_once(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(keyrings, "matches", lambda key, against: compared.append(key) is None)
    keyring = make_keyring(rows)
    await asyncio.gather(*(keyring.check(KEY, "x") for _ in range(50)))
    await keyring.check(KEY, "x")
    assert len(compared) == 1
    assert rows.reads == 51  # and yet the row is read every time


async def test_a_burst_with_one_key_is_one_guess(rows: Rows) -> None:
    """After a start no key is remembered: a client with many connections was taken for one that guesses."""
    keyring = make_keyring(rows, limit=1)
    found = await asyncio.gather(*(keyring.check(KEY, "x") for _ in range(50)))
    assert {each.id for each in found} == {"id-of-a"}
    wrong = [keyring.check("sk_" + letter * 43, "y") for letter in "xyz"]
    ends = await asyncio.gather(*wrong, return_exceptions=True)
    assert [type(end) for end in ends] == [Unauthorized, TooManyRequests, TooManyRequests]


async def test_a_caller_who_leaves_does_not_take_the_comparison_along(rows: Rows) -> None:
    rows.add(KEY, hash=bcrypt.hashpw(KEY.encode(), bcrypt.gensalt(10)).decode())
    keyring = make_keyring(rows)
    first = asyncio.create_task(keyring.check(KEY, "x"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(keyring.check(KEY, "x"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).id == "id-of-a"


async def test_an_unknown_prefix_takes_as_long_as_a_wrong_key(rows: Rows) -> None:
    rows.add(KEY, hash=bcrypt.hashpw(KEY.encode(), bcrypt.gensalt(8)).decode())
    keyring = make_keyring(rows, cost=8)

    async def time_of(key: str) -> float:
        began = time.perf_counter()
        with pytest.raises(Unauthorized):
            await keyring.check(key, "x")
        return time.perf_counter() - began

    wrong, unknown = list[float](), list[float]()
    for n in range(9):  # in turn: the machine is as busy for the ones as for the others
        wrong.append(await time_of(KEY[:15] + f"{n:031d}"))
        unknown.append(await time_of("sk_zzzzzzzzzzzz" + f"{n:031d}"))
    assert 0.6 < statistics.median(unknown) / statistics.median(wrong) < 1.7


def test_attempts_are_forgotten_after_a_minute() -> None:
    now = 0.0
    attempts = Attempts(limit=2, clock=lambda: now)
    attempts.begin("a")
    attempts.forgive("a", attempts.begin("a"))
    attempts.begin("a")
    with pytest.raises(TooManyRequests) as stopped:
        attempts.begin("a")
    assert stopped.value.retry_after == 60
    attempts.begin("b")
    now = 60.5
    attempts.begin("a")


def request_from(peer: str | None, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request({"type": "http", "client": (peer, 1) if peer else None, "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("1.2.3.4", (), (), "1.2.3.4"),
        ("1.2.3.4", ("9.9.9.9",), (), "1.2.3.4"),
        ("127.0.0.1", ("9.9.9.9",), ("127.0.0.0/8",), "9.9.9.9"),
        ("10.0.0.1", ("6.6.6.6, 9.9.9.9, 10.0.0.2",), ("10.0.0.0/8",), "9.9.9.9"),
        ("10.0.0.1", ("6.6.6.6", "9.9.9.9"), ("10.0.0.0/8",), "9.9.9.9"),
        ("10.0.0.1", ("9.9.9.9, junk",), ("10.0.0.0/8",), "10.0.0.1"),
        ("10.0.0.1", ("",), ("10.0.0.0/8",), "10.0.0.1"),
        ("10.0.0.1", ("9.9.9.9:1234",), ("10.0.0.0/8",), "9.9.9.9"),
        ("10.0.0.1", ("[2001:db8::1]:80",), ("10.0.0.0/8",), "2001:db8::/64"),
        ("::ffff:10.0.0.1", ("9.9.9.9",), ("10.0.0.0/8",), "9.9.9.9"),
        ("2001:db8::5", (), (), "2001:db8::/64"),
        (None, ("9.9.9.9",), ("0.0.0.0/0",), "unknown"),
    ],
)
def test_a_peer_is_who_the_trusted_proxies_say(
    peer: str | None, forwarded: tuple[str, ...], trusted: tuple[str, ...], expected: str
) -> None:
    networks = [ip_network(text) for text in trusted]
    assert peers.address(request_from(peer, *forwarded), networks) == expected
