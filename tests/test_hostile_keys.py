"""Keys that are none: whatever is shown instead of one is 401, costs next to nothing, and tells nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import bcrypt
import pytest
from api_service import Service, running
from starlette.routing import Route
from webserving import KEY, OTHER_KEY, Rows, make_rows, raw, until

from backend.core.errors import TooManyRequests, Unauthorized, Unavailable
from backend.core.ids import new_id
from backend.db import keys
from backend.db.connection import Tx
from backend.web.callers import keyring as keyrings
from backend.web.callers.attempts import LIMIT, Attempts
from backend.web.callers.keyring import Keyring
from backend.web.calls.operation import OPERATIONS, Operation
from backend.web.server import entry

LONG = "sk_" + "a" * 70  # 73 bytes: bcrypt itself raises for more than 72
NO_KEYS = [LONG, LONG * 3, "sk_" + "a" * 42, "sk_" + "a" * 44, "sk_", "sk", " ", "null", "SK_" + "a" * 43]
NO_KEYS += [
    "sk_" + "a" * 42 + "é",
    "sk_" + "a" * 42 + "\N{ARABIC-INDIC DIGIT ONE}",
    "sk_" + "a" * 42 + "%00",
    KEY + "\t",
]
NO_KEYS += ["sk_" + "a" * 42 + "'", f"{KEY},{KEY}", f"{KEY};", f'"{KEY}"', "$2b$10$" + "a" * 53]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("keys"), trusted_proxies="127.0.0.0/8") as found:
        yield found


def from_somewhere() -> dict[str, str]:
    """Headers of a request from an address of its own, as a trusted proxy says."""
    from_somewhere.last += 1  # type: ignore[attr-defined]
    number: int = from_somewhere.last  # type: ignore[attr-defined]
    return {"X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}


from_somewhere.last = 0  # type: ignore[attr-defined]


@pytest.mark.hazard(26)
@pytest.mark.hazard(27)
@pytest.mark.parametrize("key", NO_KEYS, ids=ascii)
def test_what_has_not_the_form_of_a_key_is_401_without_a_comparison(
    service: Service, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    monkeypatch.setattr(keyrings, "matches", lambda key, against: compared.append(key))
    for header in ("Authorization", "X-API-Key"):
        shown = f"Bearer {key}" if header == "Authorization" else key
        headers = {header: shown.encode().decode("latin-1"), **from_somewhere()}
        answer = service.ask("GET", "/api/v2/campaigns", key="", headers=headers)
        assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["content-type"] == "application/problem+json"
    assert compared == []


@pytest.mark.hazard(27)
@pytest.mark.parametrize("key", [KEY[:-1] + "\0", "sk_\0" + "a" * 42, KEY + "\0", "\0"], ids=ascii)
async def test_a_key_with_nul_reaches_no_comparison(key: str) -> None:
    rows = make_rows()
    with pytest.raises(Unauthorized):
        await Keyring(rows.find, lambda: 1000, cost=4).check(key, "x")
    assert rows.reads == 0


@pytest.mark.hazard(26)
@pytest.mark.parametrize(
    "lines",
    [
        [f"Authorization: Bearer {KEY}", f"Authorization: Bearer {KEY}"],
        [f"Authorization: Bearer {KEY}", "authorization: Bearer x"],
        [f"X-API-Key: {KEY}", f"x-api-key: {KEY}"],
        [f"X-API-Key: {KEY}", f"Authorization: Bearer {OTHER_KEY}"],
        [f"X-API-Key: {KEY}", f"Authorization: Basic {KEY}"],
        [f"X-API-Key: {KEY}", "Authorization:"],
        [f"Authorization: Bearer {KEY}\0"],
        [f"Authorization: Bearer\t{KEY}"],
    ],
    ids=repr,
)
def test_two_headers_or_bytes_no_header_has_let_nobody_in(service: Service, lines: list[str]) -> None:
    good = [line.replace(KEY, service.admin) for line in lines]
    text = "\r\n".join(["GET /api/v2/campaigns HTTP/1.1", "Host: localhost", *good, "Connection: close", "", ""])
    assert raw(service.port, text.encode())[9:12] in (b"400", b"401")


def real_rows(service: Service, hash_: str) -> str:
    """A key whose row holds this instead of its hash."""
    text, id = service.key(None)

    async def spoil(tx: Tx) -> None:
        await tx.run("UPDATE api_keys SET hash = :hash WHERE id = :id", hash=hash_, id=id)

    service.run(service.ctx.db.write(spoil))
    return text


@pytest.mark.hazard(28)
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "hash_",
    [
        "",
        "notahash",
        "0" * 64,
        "$2b$31$" + "." * 53,
        "$2b$15$" + "." * 53,
        "$2b$99$" + "a" * 53,
        "$2b$03$" + "a" * 53,
        "$2b$10$" + "a" * 52,
        "$2b$10$" + "a" * 53 + "\n",
        "$2b$10$" + "é" * 53,
        "$1$abc$" + "a" * 22,
        "$2b$1e$" + "a" * 53,
        "\x00" * 60,
    ],
    ids=ascii,
)
def test_a_row_with_a_broken_hash_is_401_for_its_key_and_hurts_no_other(service: Service, hash_: str) -> None:
    broken = real_rows(service, hash_)
    answer = service.ask("GET", "/api/v2/campaigns", key=broken, headers=from_somewhere())
    assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
    good, _ = service.key(None)
    assert service.ask("GET", "/api/v2/campaigns", key=good, headers=from_somewhere()).status == 200


class Counting:
    """Stands for the comparison: counts how many run, have run, and for which hashes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.against: list[str] = []
        self.most = self._now = 0
        self.may_end = threading.Event()
        self._lock = threading.Lock()
        monkeypatch.setattr(keyrings, "matches", self)

    def __call__(self, key: str, against: str) -> bool:
        with self._lock:
            self.against.append(against)
            self._now += 1
            self.most = max(self.most, self._now)
        self.may_end.wait(10)
        with self._lock:
            self._now -= 1
        return bcrypt.checkpw(key.encode(), against.encode())


def ring(rows: Rows, **more: Any) -> Keyring:
    return Keyring(rows.find, lambda: 1000, cost=4, **more)


@pytest.mark.hazard(29)
async def test_unknown_keys_of_many_addresses_cost_one_comparison_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows()
    rows.add(OTHER_KEY)
    keyring = ring(rows, attempts=Attempts(1000))
    assert (await keyring.check(KEY, "good")).id == "id-of-a"
    counting = Counting(monkeypatch)
    bad = [asyncio.create_task(keyring.check(f"sk_{n:043d}", f"{n}")) for n in range(200)]
    await asyncio.to_thread(until, lambda: len(counting.against) >= 1)
    assert (await keyring.check(KEY, "good")).id == "id-of-a"
    new = asyncio.create_task(keyring.check(OTHER_KEY, "good"))
    await asyncio.to_thread(until, lambda: len(counting.against) >= 2)  # a good key finds a thread meanwhile
    counting.may_end.set()
    assert (await new).id == "id-of-c"
    ends = await asyncio.gather(*bad, return_exceptions=True)
    assert {type(end) for end in ends} == {Unauthorized}
    assert counting.most <= 2 and len(counting.against) < 10


@pytest.mark.hazard(29)
async def test_places_are_few_and_who_knows_a_prefix_takes_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys without a fingerprint, as an earlier version made them."""
    rows = make_rows()
    rows.add(OTHER_KEY)
    keyring = ring(rows, attempts=Attempts(1000))
    counting = Counting(monkeypatch)
    bad = [asyncio.create_task(keyring.check(f"{KEY[:15]}{n:031d}", f"{n}")) for n in range(200)]
    await asyncio.to_thread(until, lambda: len(counting.against) >= 2)
    assert len([task for task in bad if task.done()]) == 200 - 8, "what cannot be checked soon is refused at once"
    new = asyncio.create_task(keyring.check(OTHER_KEY, "good"))
    counting.may_end.set()
    assert (await new).id == "id-of-c"
    ends = await asyncio.gather(*bad, return_exceptions=True)
    assert {type(end) for end in ends} == {Unauthorized, Unavailable}
    assert counting.most <= 2 and len(counting.against) == 8 + 1


@pytest.mark.hazard(29)
async def test_two_hundred_bad_keys_of_one_address_are_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows()
    rows.add(OTHER_KEY)
    keyring = ring(rows)
    assert (await keyring.check(KEY, "here")).id == "id-of-a"
    counting = Counting(monkeypatch)
    counting.may_end.set()
    storm = (keyring.check(f"sk_{n:043d}", "here") for n in range(200))
    ends = await asyncio.gather(*storm, return_exceptions=True)
    assert [type(end) for end in ends].count(TooManyRequests) == 200 - LIMIT
    assert len(counting.against) <= LIMIT
    assert (await keyring.check(KEY, "here")).id == "id-of-a"  # from the very same address
    assert (await keyring.check(OTHER_KEY, "here")).id == "id-of-c"  # and so is one that was never seen


@pytest.mark.hazard(29)
async def test_a_key_at_work_is_not_shut_out_by_a_flood_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a tunnel everybody has one address; a key that is used is not compared anew."""
    now = 0.0
    monkeypatch.setattr(keyrings, "time", SimpleNamespace(monotonic=lambda: now))
    keyring = ring(make_rows(), attempts=Attempts(clock=lambda: now))
    await keyring.check(KEY, "tunnel")
    for _round in range(300):
        now += 30
        for _ in range(LIMIT):
            with pytest.raises((Unauthorized, TooManyRequests)):
                await keyring.check("junk", "tunnel")
        assert (await keyring.check(KEY, "tunnel")).id == "id-of-a"


@pytest.mark.hazard(30)
async def test_an_unknown_key_costs_what_a_wrong_one_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by what is computed and not by a clock: one comparison each, of one cost."""
    rows = make_rows()
    counting = Counting(monkeypatch)
    counting.may_end.set()
    keyring = ring(rows)
    told = []
    for key in (KEY[:15] + "z" * 31, "sk_" + "z" * 43):
        before = len(counting.against)
        with pytest.raises(Unauthorized) as refused:
            await keyring.check(key, "x")
        assert len(counting.against) == before + 1
        told.append((refused.value.message, refused.value.code, refused.value.headers))
    wrong, unknown = counting.against
    assert wrong[:7] == unknown[:7] and len(wrong) == len(unknown)
    assert told[0] == told[1]


@pytest.mark.hazard(30)
def test_a_dummy_is_compared_at_the_cost_keys_are_made_with(service: Service) -> None:
    made = service.run(service.ctx.db.read(lambda tx: keys.page(tx, None, 100)))
    real = [row.hash for row in made if row.hash.startswith("$2b$10$") and len(row.hash) == 60]
    assert real and Keyring(make_rows().find, lambda: 0)._dummy[:7] == real[0][:7]


@pytest.mark.hazard(30)
def test_every_401_says_the_same(service: Service) -> None:
    text, id = service.key(None)
    service.ask("DELETE", f"/api/v2/keys/{id}")
    bodies = set()
    for key in (text, text[:20] + "z" * 26, "sk_" + "z" * 43, "junk", real_rows(service, "junk")):
        answer = service.ask("GET", "/api/v2/campaigns", key=key, headers=from_somewhere())
        assert answer.status == 401
        bodies.add(str({k: v for k, v in answer.json().items() if k != "request_id"}))
    assert len(bodies) == 1


@pytest.mark.hazard(31)
def test_a_revoked_key_dies_with_the_answer_that_says_so(service: Service) -> None:
    text, id = service.key(None)
    for _ in range(3):
        assert service.ask("GET", "/api/v2/campaigns", key=text).status == 200
    assert service.ask("DELETE", f"/api/v2/keys/{id}").status == 204
    assert service.ask("GET", "/api/v2/campaigns", key=text, headers=from_somewhere()).status == 401


@pytest.mark.hazard(31)
async def test_a_key_expires_while_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, now = make_rows(), 1000
    rows.by_prefix[KEY[3:15]] = replace(rows.by_prefix[KEY[3:15]], expires_at=2000)
    keyring = Keyring(rows.find, lambda: now, cost=4)
    await keyring.check(KEY, "x")
    now = 1999
    await keyring.check(KEY, "x")
    now = 2000
    with pytest.raises(Unauthorized):
        await keyring.check(KEY, "x")


@pytest.mark.hazard(31)
def test_the_keys_of_a_deleted_client_die_with_it(service: Service) -> None:
    who = service.tenant()
    assert service.ask("GET", "/api/v2/campaigns", key=who.key).status == 200
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 204
    assert service.ask("GET", "/api/v2/campaigns", key=who.key, headers=from_somewhere()).status == 401


PUBLIC = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/webhooks/{provider}/{generation_id}/{nonce}"}


@pytest.mark.hazard(25)
def test_every_route_of_the_application_is_an_operation_that_says_who_may_use_it(service: Service) -> None:
    app = entry.build(service.ctx)
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes), "a mount or a websocket would be asked for no key"
    made = {(one.path, one.method): one.auth for one in OPERATIONS}
    for route in routes:
        for method in route.methods or ():
            auth = made[route.path, "GET" if method == "HEAD" else method]
            assert auth in ("key", "admin", "media", "none")
            assert (auth == "none") == (route.path in PUBLIC or route.path.startswith("/docs"))


@pytest.mark.hazard(25)
@pytest.mark.parametrize(
    "host", ["example.com/healthz?", "h/docs#", "localhost/healthz?x=", "@localhost", "x:1/metrics?"]
)
def test_a_host_that_looks_like_a_path_opens_no_route(service: Service, host: str) -> None:
    for made in OPERATIONS:
        if made.auth != "none":
            answer = service.ask(
                made.method, path_of(service, made), key="", headers={"Host": host, **from_somewhere()}
            )
            assert answer.status in (400, 401), (made.path, host)


@pytest.mark.hazard(25)
@pytest.mark.parametrize(
    "bend", ["{path}?/healthz", "//healthz/..{path}", "{path}/", "/docs/..{path}", "{path};/healthz"]
)
def test_a_path_that_looks_like_a_public_one_opens_nothing(service: Service, bend: str) -> None:
    answer = service.ask("GET", bend.format(path="/api/v2/generations"), key="")
    assert answer.status in (401, 404)


def path_of(service: Service, made: Operation) -> str:
    id = new_id(service.ctx.now())
    return made.path.replace("{id}", id).replace("{which}", "first")


@pytest.mark.hazard(46)
def test_behind_a_trusted_proxy_only_what_it_added_counts(service: Service) -> None:
    def guess(forwarded: str) -> int:
        headers = {"X-Forwarded-For": forwarded}
        return service.ask("GET", "/api/v2/campaigns", key="sk_junk", headers=headers).status

    invented = [guess(f"1.2.3.{n}, 203.0.113.9") for n in range(100)]
    assert invented == [401] * LIMIT + [429] * (100 - LIMIT)
    assert guess("203.0.113.9, 203.0.113.10") == 401  # another address that the proxy saw


@pytest.mark.hazard(46)
def test_without_trusted_proxies_a_forwarded_address_is_only_words(tmp_path: Any) -> None:
    with running(tmp_path) as service:
        names = ("X-Forwarded-For", "X_Forwarded_For", "Forwarded", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP")
        statuses = [
            service.ask(
                "GET", "/api/v2/campaigns", key="sk_junk", headers={name: f"1.2.3.{n}" for name in names}
            ).status
            for n in range(100)
        ]
    assert statuses == [401] * LIMIT + [429] * (100 - LIMIT)
