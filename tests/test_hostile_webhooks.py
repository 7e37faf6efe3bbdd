"""Webhooks from strangers, from the past, about somebody else, or larger than anybody means: nothing is believed."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from auditor import creates_of
from emulating import Provider, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from workshop import Workshop

from backend.config.loading import load
from backend.core.errors import SettingsError
from backend.emulator import WEBHOOK_SECRET
from backend.providers import signatures
from backend.steps import receive
from backend.web.server import middleware

SECRET = signatures.read_secret(WEBHOOK_SECRET)
STRANGER = "01890000-0000-7000-8000-000000000000"
LOST = {"kind": "webhook_lost"}
ROOT = Path(__file__).parent.parent


def signed(body: bytes, id: str = "msg_of_the_test", *, ahead_s: int = 0) -> dict[str, str]:
    at = int(time.time()) + ahead_s
    right = signatures.sign(SECRET, id, at, body)
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": right}


def path_of(shop: Workshop, id: str) -> str:
    return f"/webhooks/replicate/{id}/{shop.row(id).nonce}"


def tell(shop: Workshop, id: str, told: dict[str, Any], webhook_id: str = "msg_of_the_test") -> httpx.Response:
    body = json.dumps(told).encode()
    return shop.http.post(path_of(shop, id), content=body, headers=signed(body, webhook_id))


def sent(bench: Workshop, **wanted: Any) -> str:
    """A generation that a worker has handed over."""
    id = str(bench.ask(**wanted)["id"])
    bench.submit_next()
    return id


def believe(shop: Workshop) -> None:
    while shop.run(receive.believe(shop.ctx)):
        pass


def notes(shop: Workshop, id: str) -> list[str | None]:
    rows = shop.run(shop.ctx.db.read(lambda tx: tx.all("SELECT note FROM deliveries WHERE generation_id = :id", id=id)))
    return [row["note"] for row in rows]


def is_problem(answer: httpx.Response, status: int) -> bool:
    problem = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return bool(problem["status"] == status and problem["request_id"] == answer.headers["x-request-id"])


@pytest.mark.hazard(14, 15)
def test_whatever_is_not_signed_right_is_401_on_the_wire(bench: Workshop, provider: Provider) -> None:
    provider.spoil(LOST)
    id = sent(bench)
    body = json.dumps({"id": bench.row(id).provider_id, "status": "failed", "error": "forged"}).encode()
    good = signed(body)
    changes: list[dict[str, Any]] = [{name: None} for name in good]
    for odd in (
        "",
        "v1  v1",
        "v1",
        "v1,",
        "v1,%",
        "v1,a,b",
        "junk",
        "v1a,x",
        good["webhook-signature"][:-1],
        "v1,\xe9",
    ):
        changes.append({"webhook-signature": odd})
    for odd in ("nan", "inf", "1e9", "-1", "0", good["webhook-timestamp"] + "000", good["webhook-timestamp"] + ".0"):
        changes.append({"webhook-timestamp": odd})
    changes += [signed(body, ahead_s=-302), signed(body, ahead_s=302), {"webhook-id": "a.b"}, {"webhook-id": "x" * 300}]
    for change in changes:
        headers = {name: value.encode("latin-1") for name, value in (good | change).items() if value is not None}
        assert is_problem(bench.http.post(path_of(bench, id), content=body, headers=headers), 401), change
    for junk in (b"\xff\xfe", b"", b"[" * 100_000, b"\x00"):
        assert is_problem(bench.http.post(path_of(bench, id), content=junk, headers=good), 401)
    assert notes(bench, id) == []
    among = good | {"webhook-signature": f"junk v1,bad  {good['webhook-signature']}"}
    assert bench.http.post(path_of(bench, id), content=body, headers=among).status_code == 200
    bench.finished = False


@pytest.mark.hazard(15)
@pytest.mark.parametrize("ahead_s", [-302, 302])
def test_a_clock_five_minutes_off_believes_nobody(bench: Workshop, provider: Provider, ahead_s: int) -> None:
    provider.spoil(LOST)
    id = sent(bench)
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.now = bench.clock
    bench.clock.ahead_ms += ahead_s * 1000
    assert is_problem(tell(bench, id, {"id": bench.row(id).provider_id, "status": "failed"}), 401)
    bench.clock.ahead_ms -= ahead_s * 1000
    assert tell(bench, id, {"id": bench.row(id).provider_id, "status": "processing"}).status_code == 200
    bench.finished = False


@pytest.mark.hazard(19)
def test_a_stranger_cannot_tell_a_generation_that_exists_from_one_that_does_not(
    bench: Workshop, provider: Provider
) -> None:
    provider.spoil(LOST)
    id = sent(bench)
    right = bench.row(id).nonce
    body = b'{"id": "p"}'

    def answers(headers: dict[str, str], *nonces: str) -> set[tuple[int, str]]:
        seen = set()
        for one, nonce in zip((id, id, STRANGER, STRANGER), (*nonces, "wrong", right), strict=True):
            got = bench.http.post(f"/webhooks/replicate/{one}/{nonce}", content=body, headers=headers)
            seen.add((got.status_code, got.text.replace(got.headers["x-request-id"], "")))
        return seen

    assert {status for status, _ in answers({}, right, "wrong")} == {401}
    assert len(answers({}, right, "wrong")) == 1
    by_key = answers(signed(body), "wrong", "w" * 32)
    assert {status for status, _ in by_key} == {404} and len(by_key) == 1
    bench.finished = False


@pytest.mark.hazard(17)
def test_two_unclear_submits_do_not_get_each_others_prediction(bench: Workshop, provider: Provider) -> None:
    """Each webhook is signed right and comes to a URL that is right, only not to its own."""
    provider.spoil({"kind": "reset_after"}, LOST)
    ids = [sent(bench, prompt=prompt) for prompt in ("one", "two")]
    assert [bench.stage(id) for id in ids] == ["unclear", "unclear"]
    listed = {one["input"]["prompt"]: one for one in provider.http.get("/predictions").json()["results"]}
    told = [provider.ended(listed[prompt]["id"]) for prompt in ("one", "two")]
    for id, others in zip(ids, reversed(told), strict=True):
        assert tell(bench, id, others, "crossed").status_code == 200
    believe(bench)
    assert [bench.stage(id) for id in ids] == ["unclear", "unclear"]
    assert [notes(bench, id) for id in ids] == [["another prediction"]] * 2
    for id, own in zip(ids, told, strict=True):
        assert tell(bench, id, own, "own").status_code == 200
    believe(bench)
    assert [bench.row(id).provider_id for id in ids] == [own["id"] for own in told]
    assert [bench.stage(id) for id in ids] == ["storing", "storing"]
    bench.finished = False


@pytest.mark.hazard(17)
def test_an_unclear_submit_adopts_the_prediction_that_reports_to_it_or_to_nobody(
    bench: Workshop, provider: Provider
) -> None:
    provider.spoil({"kind": "reset_after"}, LOST)
    id = sent(bench, prompt="mine")
    (listed,) = provider.http.get("/predictions").json()["results"]
    told = {name: value for name, value in provider.ended(listed["id"]).items() if name != "webhook"}
    assert tell(bench, id, told).status_code == 200
    believe(bench)
    assert bench.stage(id) == "storing"
    bench.finished = False


WORDS = ("starting", "processing", "odd", "succeeded", "failed", "canceled")


@pytest.mark.hazard(16, 18)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), repeats=st.integers(1, 2), at_once=st.booleans())
def test_in_whatever_order_its_webhooks_come_the_first_end_is_the_end(
    bench: Workshop, provider: Provider, words: list[str], repeats: int, at_once: bool
) -> None:
    bench.finished = False
    provider.spoil(LOST, {"kind": "stuck"})
    id = sent(bench)
    theirs = {"id": bench.row(id).provider_id, "output": "https://replicate.delivery/x.png"}
    for number, word in enumerate(words):
        for _ in range(repeats):
            assert tell(bench, id, theirs | {"status": word, "error": "told"}, f"msg_{number}").status_code == 200
        if not at_once:
            believe(bench)
    believe(bench)
    ends = [word for word in words if word in ("succeeded", "failed", "canceled")]
    expected = {"succeeded": "storing"}.get(ends[0], ends[0]) if ends else "processing"
    assert bench.stage(id) == expected
    assert len(notes(bench, id)) == len(words)
    query = "SELECT type FROM events WHERE generation_id = :id"
    told = [row["type"] for row in bench.run(bench.ctx.db.read(lambda tx: tx.all(query, id=id)))]
    assert len(told) == len(set(told))


@pytest.mark.hazard(20)
def test_a_huge_webhook_is_413_before_anybody_looks_at_its_signature(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "log", structlog.get_logger())  # one that was used keeps the place it had then
    provider.spoil(LOST)
    id = sent(bench)
    asked: list[int] = []
    replicate: Any = bench.ctx.providers["replicate"]
    verify = replicate.webhooks.verify
    replicate.webhooks.verify = lambda headers, body: asked.append(len(body)) or verify(headers, body)
    host, port = bench.origin.removeprefix("http://").split(":")
    claims = "".join(f"{name}: {value}\r\n" for name, value in signed(b"").items())
    head = f"POST {path_of(bench, id)} HTTP/1.1\r\nHost: {host}\r\n{claims}"
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with capture_logs() as logs:
        for length, body in (
            ("Content-Length: 100000000", b""),
            ("Transfer-Encoding: chunked", chunk * 11),
            ("Content-Length: 100000000", b" " * 1000),
        ):
            with socket.create_connection((host, int(port)), timeout=10) as line:
                line.sendall(f"{head}{length}\r\n\r\n".encode() + body)
                assert line.recv(65536).startswith(b"HTTP/1.1 413 ")
        until(lambda: len([each for each in logs if each["event"] == "request"]) == 3)
    assert asked == []
    assert {each["event"] for each in logs} == {"request"}, "a client that leaves without a word is no failure of ours"
    bench.finished = False


@pytest.mark.hazard(20, 42)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"{"',
        b"{}{}",
        b"\xff\xfe{\x00}\x00",
        b'{"id": "\x00"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b" " * 9_000_000,
    ],
    ids=lambda body: f"{body[:10]!r} {len(body)}",
)
def test_signed_junk_is_400_and_is_not_kept(bench: Workshop, provider: Provider, body: bytes) -> None:
    provider.spoil(LOST)
    id = sent(bench)
    assert is_problem(bench.http.post(path_of(bench, id), content=body, headers=signed(body)), 400)
    assert notes(bench, id) == []
    bench.finished = False


@pytest.mark.hazard(42)
@pytest.mark.parametrize("by", ["webhook", "poll"])
def test_text_that_no_database_takes_ends_the_row_and_harms_nobody(
    bench: Workshop, provider: Provider, by: str
) -> None:
    provider.spoil(LOST, {"kind": "stuck"})
    id = sent(bench)
    odd = {"error": "broke\x00 \ud800 here", "status": "failed", "id": bench.row(id).provider_id}
    if by == "webhook":
        assert tell(bench, id, odd).status_code == 200
        believe(bench)
    else:
        replicate: Any = bench.ctx.providers["replicate"]

        async def ask(provider_id: str) -> Any:
            return replicate.webhooks.read(json.dumps(odd).encode())

        replicate.ask = ask
        bench.clock.forward(11)
        bench.look("processing")
    assert bench.ended(id, "failed")["error"]["message"] == "broke ? here"
    fox = sent(bench)
    odd_id = {"id": "p\x00\ud800", "status": "succeeded", "output": "x"}
    odd_output = {"id": bench.row(fox).provider_id, "status": "succeeded", "output": ["\x00https://\udfff/", "\x00"]}
    assert tell(bench, fox, odd_id, "m1").status_code == 200
    assert tell(bench, fox, odd_output, "m2").status_code == 200
    believe(bench)
    assert notes(bench, fox) == ["not a prediction", "storing"]
    bench.look("storing")
    assert bench.ended(fox, "failed")["error"]["code"] == "output_invalid"


@pytest.mark.hazard(16, 21)
def test_webhooks_are_answered_at_once_while_the_storage_is_slow(shop: Workshop, provider: Provider) -> None:
    """A slow disk holds up the file, not the answer, or the provider would send everything again."""
    provider.spoil(LOST)
    store: Any = shop.ctx.store
    put_all, free, started = store.put_all, threading.Event(), []

    async def put_slowly(files: Any) -> None:
        started.append(files)
        await asyncio.to_thread(free.wait, 20)
        await put_all(files)

    store.put_all = put_slowly
    id = shop.ask()["id"]
    shop.reach(id, "processing")
    told = provider.ended(shop.row(id).provider_id or "")
    assert tell(shop, id, told, "first").status_code == 200
    until(lambda: started)
    with ThreadPoolExecutor(10) as threads:

        def again(_: int) -> tuple[int, float]:
            began = time.monotonic()
            return tell(shop, id, told, "first").status_code, time.monotonic() - began

        answers = list(threads.map(again, range(100)))
    assert {status for status, _ in answers} == {200} and max(seconds for _, seconds in answers) < 1
    assert shop.stage(id) == "storing" and len(started) == 1
    free.set()
    shop.ended(id, "completed")
    assert len(creates_of(provider.ledger, id)) == 1 and provider.ledger["downloads"] == 1


@pytest.mark.hazard(22)
def test_without_a_secret_no_webhook_is_believed(bench: Workshop, provider: Provider) -> None:
    """A provider that does not tell its secret is asked by polls; what comes by webhook is refused, never let in."""
    provider.spoil(LOST)
    id = sent(bench)
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.webhooks._secret, replicate.webhooks._asked_at, replicate.base_url = None, 0, "http://127.0.0.1:9/v1"
    body = json.dumps({"id": bench.row(id).provider_id, "status": "failed"}).encode()
    empty = signatures.sign(b"", "m", int(time.time()), body)
    forged = {"webhook-id": "m", "webhook-timestamp": str(int(time.time())), "webhook-signature": empty}
    assert is_problem(bench.http.post(path_of(bench, id), content=body), 401)
    for headers in (signed(body), forged):
        answer = bench.http.post(path_of(bench, id), content=body, headers=headers)
        assert is_problem(answer, 503) and int(answer.headers["retry-after"]) > 0
    assert notes(bench, id) == [] and bench.stage(id) == "processing"
    bench.finished = False


@pytest.mark.hazard(22)
@pytest.mark.parametrize("secret", ["whsec_AA", "your-secret-here", "whsec_", "x"])
def test_a_weak_secret_stops_the_start(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("REPLICATE_WEBHOOK_SECRET", secret)
    with pytest.raises(SettingsError, match=r"^REPLICATE_WEBHOOK_SECRET: "):
        load()


SECRETS = {"signature", "signatures", "sig", "nonce", "mac", "hmac", "secret", "token"}


@pytest.mark.hazard(23)
def test_no_signature_secret_or_nonce_is_compared_with_equals() -> None:
    """`==` stops at the first wrong byte, and how long that took can be measured."""
    found, checkers = [], 0
    for path in sorted((ROOT / "backend").rglob("*.py")):
        if "emulator" in path.parts:
            continue
        text = path.read_text()
        checkers += "compare_digest" in text
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Compare) and _compares_secrets(node, everything="compare_digest" in text):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == [] and checkers >= 3


def _compares_secrets(node: ast.Compare, *, everything: bool) -> bool:
    """Whether two texts that only run time knows are compared and one is secret; or any two, where secrets live."""
    if not any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops):
        return False
    sides = [_last_name(side) for side in (node.left, *node.comparators) if not isinstance(side, ast.Constant)]
    is_secret = any(name.split("_")[-1] in SECRETS for name in sides)
    is_equals = any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
    return len(sides) > 1 and (is_secret or (everything and is_equals and not {"len", "str"} & set(sides)))


def _last_name(side: ast.expr) -> str:
    if isinstance(side, ast.Call | ast.Subscript | ast.Await):
        return _last_name(side.func if isinstance(side, ast.Call) else side.value)
    name = side.attr if isinstance(side, ast.Attribute) else side.id if isinstance(side, ast.Name) else ""
    return name.lower().strip("_")
