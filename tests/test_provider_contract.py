"""Every provider keeps the seam's promises: what is paid is known, nothing is sent twice, no key goes astray."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from firewall import Firewall, answer, before
from provider_contract import ID, Bench, Stand, Subject, bench, standing
from toy_emulator import KEY, PICTURE, TOY
from toy_provider import build

from backend.context import now_ms
from backend.core.errors import (
    BadAnswer,
    BlockedAddress,
    NetworkError,
    ProviderError,
    ProviderRefused,
    ProviderUnavailable,
    ProviderUnclear,
    Unauthorized,
)
from backend.core.generation import ERROR_CODES
from backend.core.outcomes import Outcome
from backend.emulator import WEBHOOK_SECRET
from backend.emulator.replicate import REPLICATE
from backend.providers.base import Handle
from backend.providers.over_http import HttpProvider
from backend.providers.replicate.api import Replicate

SUBJECTS = [
    Subject(
        "replicate",
        lambda means, facts, origin: Replicate(
            means, facts, base_url=f"{origin}/v1", token="r8_emulator", secrets=[WEBHOOK_SECRET]
        ),
        REPLICATE,
        "google/nano-banana",
        "r8_emulator",
    ),
    Subject("toy", build, TOY, PICTURE, KEY),
]


@pytest.fixture(scope="module", params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.param
    return found


@pytest.fixture(scope="module")
def stand(subject: Subject) -> Iterator[Stand]:
    with standing(subject) as stand:
        yield stand


@pytest.fixture
async def it(subject: Subject, stand: Stand, tmp_path: Path) -> AsyncIterator[Bench]:
    """The adapter and its emulator, which is well again."""
    stand.spoil()
    it = bench(subject, stand, stand.origin, tmp_path)
    yield it
    await it.http.close()


@pytest.fixture
async def walled(subject: Subject, stand: Stand, tmp_path: Path) -> AsyncIterator[tuple[Bench, Firewall]]:
    """The adapter, and something on the way to its provider that answers for it."""
    stand.spoil()
    with before(stand.origin) as wall:
        it = bench(subject, stand, wall.origin, tmp_path)
        yield it, wall
        await it.http.close()


# What is sent


def test_equal_orders_make_equal_requests_and_others_do_not(
    subject: Subject, it: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (it.provider.prepare(subject.order(prompt)) for prompt in ("a fox", "a hen"))
    with monkeypatch.context() as another_day:
        another_day.setattr(time, "time", lambda: 86_400.0)
        another_day.setattr(time, "time_ns", lambda: 86_400 * 10**9)
        same = it.provider.prepare(subject.order("a fox"))
    assert one == same and hash(one) == hash(same) and one != other
    assert json.loads(one.body), "the body is JSON"


def test_a_request_holds_the_inputs_and_no_secret(subject: Subject, it: Bench) -> None:
    request = it.provider.prepare(subject.order("a fox in the snow"))
    assert "a fox in the snow" in request.body and subject.secret not in repr(request)
    report = replace(subject.order(), webhook_url="https://us.example/webhooks/x/y/z")
    assert ("https://us.example/webhooks/x/y/z" in repr(it.provider.prepare(report))) is bool(it.provider.webhooks)


async def test_a_create_is_sent_once_and_answers_the_id_by_which_it_is_asked_for(it: Bench) -> None:
    before = it.stand.made
    outcome = await it.create()
    assert it.stand.made == before + 1 and outcome.provider_id
    ended = await it.ended(outcome)
    assert (ended.state, ended.provider_id, ended.failure) == ("succeeded", outcome.provider_id, None)
    assert ended.outputs
    assert ended.outputs_expire_at is None or ended.outputs_expire_at > now_ms(), "in milliseconds"


async def test_an_output_is_fetched_whole(it: Bench) -> None:
    ended = await it.ended(await it.create())
    fetched = await it.provider.fetch(ended.outputs[0], it.folder / "out", cap_bytes=1 << 24, total_s=10)
    assert fetched.bytes == (it.folder / "out").stat().st_size > 0


# What is answered to a create, and what it costs

NOT_TAKEN: list[tuple[str, type[ProviderError]]] = [
    ("reset_before", ProviderUnclear),  # nobody can tell it from the next one
    ("create_429", ProviderUnavailable),
    ("create_401", ProviderRefused),
    ("create_402", ProviderRefused),
    ("create_422", ProviderRefused),
    ("create_500", ProviderUnclear),
    ("create_502", ProviderUnclear),
    ("create_503", ProviderUnclear),
]
TAKEN = ("reset_after", "create_500_after", "create_bad_json")


@pytest.mark.parametrize(("fault", "meaning"), NOT_TAKEN, ids=lambda each: str(each))
async def test_what_is_not_taken_is_refused_or_put_off_or_unclear(
    it: Bench, fault: str, meaning: type[ProviderError]
) -> None:
    it.stand.spoil(fault)
    before = len(it.stand.creates), it.stand.made
    with pytest.raises(meaning):
        await it.create()
    assert len(it.stand.creates) <= before[0] + 1, "a create is sent once"
    assert it.stand.made == before[1]


@pytest.mark.parametrize("fault", TAKEN)
async def test_a_create_that_was_taken_is_never_said_to_be_refused(it: Bench, fault: str) -> None:
    it.stand.spoil(fault)
    before = it.stand.made
    with pytest.raises(ProviderUnclear):
        await it.create()
    assert it.stand.made == before + 1


@pytest.mark.parametrize(("fault", "everybody"), [("create_401", True), ("create_402", True), ("create_422", False)])
async def test_a_refusal_says_whether_the_next_request_would_be_refused_too(
    it: Bench, fault: str, everybody: bool
) -> None:
    it.stand.spoil(fault)
    with pytest.raises(ProviderRefused) as refused:
        await it.create()
    assert refused.value.everybody is everybody and refused.value.message
    assert it.subject.secret not in refused.value.message


async def test_a_throttled_create_says_how_long_to_wait(it: Bench) -> None:
    it.stand.spoil({"kind": "create_429", "retry_after": 7, "in_body": True, "in_header": True})
    with pytest.raises(ProviderUnavailable) as put_off:
        await it.create()
    assert put_off.value.retry_after_s == 7


async def test_nobody_at_home_means_nothing_was_sent(subject: Subject, stand: Stand, tmp_path: Path) -> None:
    it = bench(subject, stand, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(ProviderUnavailable):
        await it.create()
    await it.http.close()


def named(id: object, **more: Any) -> dict[str, Any]:
    """A body that names a prediction so, whatever its provider calls the field."""
    return {"id": id, "job": id, **more}


ODD = "a\x00b \ud800 " + "x" * 5000
NO_IDS: list[object] = [None, 5, [], {}, "", "x" * 999, "a b", "a\n", "\u00e9", "\ud800", ".", ".."]
SAID: list[bytes] = [
    b"",
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n{",
    answer(204),
    answer(201),
    *(answer(201, body) for body in ([], {}, "a page", {"job": "x", "error": 5}, named("x", urls=5, error=[]))),
    *(
        answer(status, {"detail": "x", "error": {"code": "x", "text": "x"}})
        for status in (206, 303, 406, 500, 520, 599)
    ),
    *(answer(status, "<html>a proxy</html>") for status in (302, 400, 403, 404, 413, 429, 502, 999)),
    *(answer(status, {"detail": 5, "error": 5}) for status in (400, 422, 429, 500)),
    answer(422, {"detail": ["x"] * 9, "error": "no object"}),
    answer(422, {"detail": ODD, "error": {"code": ODD, "text": ODD}}),
]


@pytest.mark.parametrize("said", SAID, ids=lambda said: repr(said[:60]))
async def test_whatever_answers_a_create_it_is_one_of_three_decisions(
    walled: tuple[Bench, Firewall], said: bytes
) -> None:
    it, wall = walled
    wall.stop("", said)
    try:
        outcome = await it.create()
    except ProviderError as error:
        error.message.encode()  # it can be written down
        assert len(error.message) < 1000 and "\x00" not in error.message
    else:
        assert outcome.provider_id.isprintable() and len(outcome.provider_id) <= 200
    assert len(wall.stopped) == 1, "a create is sent once, and follows no redirect"


@pytest.mark.parametrize("id", NO_IDS, ids=lambda id: ascii(id)[:20])
@pytest.mark.parametrize("status", [201, 200])
async def test_a_success_that_names_no_prediction_is_unclear(
    walled: tuple[Bench, Firewall], status: int, id: object
) -> None:
    it, wall = walled
    wall.stop("", answer(status, named(id) if id is not None else {"something": "else"}))
    with pytest.raises(ProviderUnclear):
        await it.create()


async def test_only_a_success_tells_of_a_prediction(walled: tuple[Bench, Firewall]) -> None:
    """Whatever stands in its body: what answers 500 may be no provider, and what it shows may be old."""
    it, wall = walled
    assert isinstance(it.provider, HttpProvider)
    outcome = await it.create()
    handle = Handle(outcome.provider_id, outcome.ref or {})
    shown = (await it.provider.call("GET", it.provider.path_of(handle))).json()
    wall.stop("", answer(500, shown))
    wall.stop("", answer(500, shown), method="GET")
    with pytest.raises(ProviderUnclear):
        await it.create()
    with pytest.raises(ProviderUnavailable):
        await it.provider.ask(handle)


PAGES = [(400, ProviderRefused), (422, ProviderRefused), (429, ProviderUnavailable), (502, ProviderUnclear)]


@pytest.mark.parametrize(("status", "meaning"), PAGES, ids=str)
async def test_a_refusal_that_is_no_json_means_what_its_status_means(
    walled: tuple[Bench, Firewall], status: int, meaning: type[ProviderError]
) -> None:
    it, wall = walled
    wall.stop("", answer(status, "<html>a proxy</html>"))
    with pytest.raises(meaning):
        await it.create()


# What is answered to a look


@pytest.mark.parametrize("fault", ["get_500", "get_429", "get_reset", "get_bad_json"])
async def test_a_look_that_goes_wrong_says_nothing_about_the_prediction(it: Bench, fault: str) -> None:
    outcome = await it.create()
    it.stand.spoil(fault)
    with pytest.raises(ProviderUnavailable):
        await it.provider.ask(Handle(outcome.provider_id, outcome.ref or {}))


async def test_a_prediction_nobody_knows_is_refused_as_unknown(it: Bench) -> None:
    outcome = await it.create()
    it.stand.spoil("get_404")
    with pytest.raises(ProviderRefused):
        await it.provider.ask(Handle(outcome.provider_id, outcome.ref or {}))


LOOKED: list[bytes] = [
    *SAID,
    *(answer(200, body) for body in ([], {}, "a page", "{", named("x"), *map(named, NO_IDS))),
    *(
        answer(200, named("x", status=word, state=word, output=odd, files=odd, error=odd, urls=odd, metrics=odd))
        for word in ("succeeded", "done", "failed", "error")
        for odd in (None, 5, [5, [], {"a": None}], {"code": 5, "text": 5}, ODD, {"code": ODD, "text": ODD})
    ),
    *(answer(200, named("x", status=word, state=word)) for word in (None, 5, [], {})),
]


@pytest.mark.parametrize("said", LOOKED, ids=lambda said: repr(said[:60]))
async def test_whatever_answers_a_look_nothing_else_is_raised(walled: tuple[Bench, Firewall], said: bytes) -> None:
    it, wall = walled
    outcome = await it.create()
    wall.stop("", said, method="GET")
    try:
        found = await it.provider.ask(Handle(outcome.provider_id, outcome.ref or {}))
    except (ProviderUnavailable, ProviderRefused) as error:
        error.message.encode()
    else:
        assert isinstance(found, Outcome)
        message = found.failure.message if found.failure else ""
        message.encode()  # it can be written down
        assert len(message) < 1000 and "\x00" not in message
    assert wall.stopped


@pytest.mark.parametrize("handle", ["../../admin", "a/b", "a?b=c", "a#b", "%2e%2e", "\u00e9", ".", ".."], ids=repr)
async def test_an_id_leads_nowhere_but_to_its_prediction(walled: tuple[Bench, Firewall], handle: str) -> None:
    it, wall = walled
    wall.stop("", answer(404, {}), method="GET")
    with pytest.raises((ProviderRefused, ProviderUnavailable)):
        await it.provider.ask(Handle(handle))
    assert all("/admin" not in path and "?b" not in path and "#" not in path for path in wall.stopped)
    assert isinstance(it.provider, HttpProvider)
    there = it.provider.path_of(Handle("x")).removesuffix("x")
    assert all(path.partition(there)[2] for path in wall.stopped), "it is asked for below the same path as any other"


async def test_a_run_that_failed_says_why_and_one_without_a_file_is_no_success(it: Bench) -> None:
    it.stand.spoil({"kind": "failed", "error": "The model\x00 broke. " + "x" * 5000})
    failed = await it.ended(await it.create())
    assert failed.state == "failed" and failed.failure and failed.failure.code in ERROR_CODES
    assert 0 < len(failed.failure.message) < 1000 and "\x00" not in failed.failure.message
    it.stand.spoil("output_empty")
    empty = await it.ended(await it.create())
    assert empty.state != "succeeded" or empty.failure is not None


async def test_a_status_nobody_knows_is_still_running(it: Bench) -> None:
    it.stand.spoil({"kind": "unknown_status", "forever": True})
    outcome = await it.create()
    assert (await it.provider.ask(Handle(outcome.provider_id, outcome.ref or {}))).state == "running"


# Where files come from


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "http://127.0.0.1:9/x", "https://elsewhere.example/x", "file:///etc/passwd"],
)
async def test_a_file_comes_from_the_provider_or_from_nowhere(it: Bench, url: str) -> None:
    with pytest.raises((BlockedAddress, BadAnswer)):
        await it.provider.fetch(url, it.folder / "out", cap_bytes=1 << 20, total_s=5)
    assert not (it.folder / "out").exists()


@pytest.mark.parametrize("fault", ["output_404", "output_truncated", "output_huge"])
async def test_a_file_that_does_not_come_whole_leaves_nothing(it: Bench, fault: str) -> None:
    it.stand.spoil(fault)
    ended = await it.ended(await it.create())
    with pytest.raises(NetworkError):
        await it.provider.fetch(ended.outputs[0], it.folder / "out", cap_bytes=1 << 20, total_s=5)
    assert not (it.folder / "out").exists()


async def test_a_redirect_leads_to_no_other_host(walled: tuple[Bench, Firewall], stand: Stand) -> None:
    it, wall = walled
    with before(stand.origin) as store:
        wall.stop("", answer(302, None, location=f"{store.origin}/file"), method="GET")
        with pytest.raises(NetworkError):
            await it.provider.fetch(f"{wall.origin}/output/x/y.png", it.folder / "out", cap_bytes=1 << 20, total_s=5)
    assert len(wall.stopped) == 1 and store.passed == [], "another port is another host, and would see our key"


# What only some can do


async def test_a_webhook_is_believed_only_when_it_is_signed(it: Bench) -> None:
    webhooks = it.provider.webhooks
    if webhooks is None:
        pytest.skip("it sends none")
    await webhooks.open()
    for headers in ({}, {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,x"}):
        with pytest.raises(Unauthorized):
            webhooks.expect(headers)
        with pytest.raises(Unauthorized):
            await webhooks.verify(headers, b"{}")
    for body in (b"", b"[]", b"{}", b"\xff", b'{"id": 5}'):
        with pytest.raises(BadAnswer):
            webhooks.read(body)


async def test_what_was_created_is_in_the_list_and_known_again(it: Bench) -> None:
    listing = it.provider.listing
    if listing is None:
        pytest.skip("it has no list")
    outcome = await it.create("a hen that nobody else asks for")
    now = now_ms()
    listed = {one.outcome.provider_id: one for one in await listing.between(now - 60_000, now + 60_000)}
    found = listed[outcome.provider_id]
    assert abs(found.created_at - now) < 60_000
    assert listing.is_of(it.provider.prepare(it.subject.order("a hen that nobody else asks for")), found)
    assert not listing.is_of(it.provider.prepare(it.subject.order("another hen")), found)


async def test_a_list_that_cannot_be_read_is_no_empty_list(walled: tuple[Bench, Firewall]) -> None:
    it, wall = walled
    if it.provider.listing is None:
        pytest.skip("it has no list")
    wall.stop("", answer(500), method="GET")
    with pytest.raises(ProviderUnavailable):
        await it.provider.listing.between(0, 1)


async def test_a_run_can_be_stopped(it: Bench) -> None:
    if it.provider.cancellation is None:
        pytest.skip("it stops nothing")
    it.stand.spoil("stuck")
    outcome = await it.create()
    handle = Handle(outcome.provider_id, outcome.ref or {})
    await it.provider.cancellation.cancel(handle)
    assert (await it.ended(outcome)).state == "canceled"


async def test_a_file_can_be_handed_over(it: Bench) -> None:
    if it.provider.uploads is None:
        pytest.skip("it has no file store")
    (it.folder / "a.png").write_bytes(b"\x89PNG")
    url = await it.provider.uploads.upload(it.folder / "a.png", "a.png", "image/png")
    assert url.startswith("http")


def test_each_create_names_its_generation_where_the_provider_can_hold_that(subject: Subject, it: Bench) -> None:
    """So that an unclear create is found by more than equal inputs: by the URL that it reports to."""
    if it.provider.webhooks is None:
        pytest.skip("it sends none")
    url = f"https://us.example/webhooks/{subject.name}/{ID}/nonce"
    assert ID in it.provider.prepare(replace(subject.order(), webhook_url=url)).body
