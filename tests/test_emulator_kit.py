"""The kit of the emulators, proved by a provider that has next to nothing in common with Replicate."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from emulating import TINY, emulating, png, until
from toy_emulator import FILM, KEY, PICTURE, TOY, Toy, start

from backend.emulator import PROVIDERS, EmulatorOptions
from backend.emulator.kit.fault_kinds import KINDS


@pytest.fixture(scope="module")
def shared() -> Iterator[Toy]:
    with start() as toy:
        yield toy


@pytest.fixture
def toy(shared: Toy) -> Iterator[Toy]:
    httpx.delete(f"{shared.origin}/emulator/ledger")
    yield shared
    shared.spoil()


def post(toy: Toy, model: str = PICTURE, key: str = KEY, **more: Any) -> httpx.Response:
    headers, wanted = {"authorization": f"Bearer {key}"}, {"prompt": "a fox", **more}
    return httpx.post(f"{toy.origin}/jobs", json={"model": model, "input": wanted}, headers=headers, timeout=5)


def get(toy: Toy, path: str, key: str = KEY) -> httpx.Response:
    return httpx.get(path if path.startswith("http") else toy.origin + path, headers={"authorization": f"Bearer {key}"})


def ended(toy: Toy, id: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (job := get(toy, f"/jobs/{id}").json())["state"] in ("done", "error") and job)
    return found


def made(toy: Toy, model: str = PICTURE, **more: Any) -> dict[str, Any]:
    answer = post(toy, model, **more)
    assert (answer.status_code, answer.json()["state"]) == (201, "queued")
    return ended(toy, answer.json()["job"])


@pytest.mark.parametrize(("model", "start"), [(PICTURE, b"\x89PNG"), (FILM, b"\0\0\0")])
def test_a_job_becomes_a_file_for_those_who_have_the_key(toy: Toy, model: str, start: bytes) -> None:
    job = made(toy, model)
    (url,) = job["files"]
    assert (job["state"], job["error"]) == ("done", None)
    assert get(toy, url).content.startswith(start)
    assert get(toy, url, key="other").json()["error"]["code"] == "unauthenticated"


def test_a_picture_is_really_drawn_from_a_reference_that_was_made_before(toy: Toy) -> None:
    with start(EmulatorOptions(image_s=0)) as full:
        first = made(full)["files"][0]
        job = made(full, image=first)
        assert len(get(full, job["files"][0]).content) > len(png())
        assert made(full, image="data:image/png;base64,aGk=")["error"]["code"] == "failed"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [({}, 400, "invalid"), ({"model": PICTURE, "input": {}}, 400, "invalid"), ([], 400, "invalid")],
)
def test_refusals_have_the_shape_that_the_description_gives_them(toy: Toy, body: Any, status: int, code: str) -> None:
    answer = httpx.post(f"{toy.origin}/jobs", json=body, headers={"authorization": f"Bearer {KEY}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert get(toy, "/jobs/none").json() == {"error": {"code": "not_found", "text": "Job not found"}}
    assert get(toy, "/nowhere").status_code == 404 and "error" in get(toy, "/nowhere").json()
    assert not any(create["created"] for create in toy.creates)


REFUSED = {"create_401": 401, "create_402": 402, "create_422": 400, "create_429": 429, "create_500": 500}


@pytest.mark.parametrize(("kind", "status"), [*REFUSED.items(), ("create_502", 502), ("create_503", 503)])
def test_a_refused_create_makes_no_job(toy: Toy, kind: str, status: int) -> None:
    toy.spoil({"kind": kind, "times": 1})
    assert [post(toy).status_code for _ in range(2)] == [status, 201]
    assert [create["created"] for create in toy.creates] == [False, True]


def test_a_429_tells_in_its_header_when_to_come_back_if_it_should(toy: Toy) -> None:
    toy.spoil({"kind": "create_429", "retry_after": 7, "in_header": True})
    assert post(toy).headers["retry-after"] == "7"
    toy.spoil("create_429")
    assert "retry-after" not in post(toy).headers


@pytest.mark.parametrize(("kind", "created"), [("reset_before", False), ("reset_after", True)])
def test_a_connection_is_reset_before_or_after_the_job_is_taken(toy: Toy, kind: str, created: bool) -> None:
    toy.spoil({"kind": kind, "times": 1})
    with pytest.raises(httpx.ReadError):
        post(toy)
    assert [(create["created"], create["answered"]) for create in toy.creates] == [(created, False)]


def test_nobody_can_connect_for_a_while_and_then_everybody_can(toy: Toy) -> None:
    toy.spoil({"kind": "connection_refused", "down_s": 0.5, "times": 1})
    with pytest.raises(httpx.ReadError):
        post(toy)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", toy.server.port), 1)
    until(lambda: can_connect(toy))
    assert post(toy).status_code == 201
    assert [create["created"] for create in toy.creates] == [False, True]


def can_connect(toy: Toy) -> bool:
    try:
        socket.create_connection(("127.0.0.1", toy.server.port), 1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_job_can_be_taken_without_an_answer_with_a_late_one_or_a_broken_one(toy: Toy) -> None:
    toy.spoil({"kind": "create_500_after", "status": 504, "times": 1}, {"kind": "create_bad_json", "match": {"nth": 2}})
    assert post(toy).status_code == 504
    with pytest.raises(ValueError):
        post(toy).json()
    toy.spoil({"kind": "delay", "on": "create", "delay_s": 0.2})
    began = time.monotonic()
    assert post(toy).status_code == 201 and time.monotonic() - began >= 0.2
    toy.spoil({"kind": "create_hang", "delay_s": 30})
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{toy.origin}/jobs",
            json={"model": PICTURE, "input": {"prompt": "x"}},
            headers={"authorization": f"Bearer {KEY}"},
            timeout=0.3,
        )
    assert all(create["created"] for create in toy.creates)


@pytest.mark.parametrize(("kind", "status"), [("get_404", 404), ("get_429", 429), ("get_500", 500)])
def test_a_question_fails_once(toy: Toy, kind: str, status: int) -> None:
    id = made(toy)["job"]
    toy.spoil({"kind": kind, "times": 1})
    assert [get(toy, f"/jobs/{id}").status_code for _ in range(2)] == [status, 200]


def test_a_question_is_cut_off_or_answered_with_half_of_the_json(toy: Toy) -> None:
    id = made(toy)["job"]
    toy.spoil({"kind": "get_reset", "times": 1}, {"kind": "get_bad_json", "match": {"nth": 2}})
    with pytest.raises(httpx.ReadError):
        get(toy, f"/jobs/{id}")
    with pytest.raises(ValueError):
        get(toy, f"/jobs/{id}").json()
    assert get(toy, f"/jobs/{id}").json()["state"] == "done"


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("failed", "error"),
        ("canceled", "error"),
        ("aborted", "error"),
        ("output_empty", "done"),
        ("output_many", "done"),
    ],
)
def test_a_job_ends_as_a_fault_wants_it(toy: Toy, fault: str, state: str) -> None:
    toy.spoil(fault)
    job = made(toy)
    assert job["state"] == state and len(job["files"]) == {"output_many": 2}.get(fault, 0)


def test_an_unknown_state_is_shown_as_it_is(toy: Toy) -> None:
    toy.spoil({"kind": "unknown_status", "status": "dreaming", "forever": True})
    id = post(toy).json()["job"]
    assert until(lambda: get(toy, f"/jobs/{id}").json()["state"] == "dreaming")


def test_a_file_is_gone_cut_or_slow(toy: Toy) -> None:
    (url,) = made(toy)["files"]
    whole = get(toy, url).content
    toy.spoil("output_404")
    assert get(toy, url).status_code == 404
    toy.spoil("output_truncated")
    with pytest.raises(httpx.RemoteProtocolError):
        get(toy, url)
    toy.spoil({"kind": "output_slow", "bytes_per_s": len(whole) * 2})
    began = time.monotonic()
    assert get(toy, url).content == whole and time.monotonic() - began > 0.3


def test_a_fault_that_cannot_happen_to_a_provider_is_refused(toy: Toy) -> None:
    toy.spoil("stuck")
    for kind in ("webhook_lost", "webhook_before_answer", "list_empty", "output_object"):
        assert toy.spoil(kind).status_code == 400
    now = httpx.get(f"{toy.origin}/emulator/faults").json()["faults"]
    assert [fault["kind"] for fault in now] == ["stuck"]


def test_every_fault_but_those_of_webhooks_lists_and_shapes_can_happen_to_the_toy() -> None:
    lacked = {kind for kind in KINDS if not TOY.can_suffer(kind)}
    assert lacked == {kind for kind in KINDS if kind.startswith(("webhook", "list"))} | {"output_list", "output_object"}
    assert all(PROVIDERS["replicate"].can_suffer(kind) for kind in KINDS)


def test_a_list_lags_behind() -> None:
    with emulating(TINY) as provider:
        provider.made()
        provider.spoil({"kind": "list_lagging", "by_s": 0.5})
        assert provider.http.get("/predictions").json()["results"] == []
        assert until(lambda: provider.http.get("/predictions").json()["results"])
