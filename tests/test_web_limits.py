from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response
from webserving import KEY, OTHER_KEY, Rows, ask, make_app, make_rows, make_site, raw, serve, until

from backend.web.callers import limits, windows
from backend.web.calls.operation import Call, Operation, operation

OPERATIONS: list[Operation] = []


@operation("POST", "/image", answers={202: None}, limit="image", into=OPERATIONS)
async def make_image(call: Call) -> Response:
    """Make an image."""
    return JSONResponse({}, 202)


@operation("POST", "/image/{id}/again", answers={202: None}, limit="image", into=OPERATIONS)
async def make_again(call: Call) -> Response:
    """Make it again."""
    return JSONResponse({}, 202)


@operation("POST", "/video", answers={202: None}, limit="video", into=OPERATIONS)
async def make_video(call: Call) -> Response:
    """Make a video."""
    return JSONResponse({}, 202)


@operation("GET", "/free", answers={200: None}, into=OPERATIONS)
async def look(call: Call) -> Response:
    """Look."""
    return JSONResponse({})


@pytest.fixture
def rows() -> Rows:
    made = make_rows()
    made.add(OTHER_KEY)
    return made


@pytest.fixture
def port(rows: Rows) -> Iterator[int]:
    with serve(make_app(make_site(rows), OPERATIONS)) as found:
        yield found


def test_a_key_gets_its_number_and_then_429_as_problem_json(port: int) -> None:
    answers = [ask(port, "POST", "/image", key=KEY) for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 202, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    last = answers[-1]
    assert last.headers["content-type"] == "application/problem+json"
    assert last.json()["code"] == "rate_limited"
    assert 55 <= int(last.headers["retry-after"]) <= 60
    assert last.headers["ratelimit-limit"] == "3"
    assert last.headers["ratelimit-policy"] == "3;w=60"
    assert int(last.headers["ratelimit-reset"]) == int(last.headers["retry-after"])
    assert not any("retry-after" in answer.headers for answer in answers[:-1])


def test_kinds_and_keys_are_counted_apart(port: int) -> None:
    for _ in range(4):
        ask(port, "POST", "/image", key=KEY)
    assert ask(port, "POST", "/video", key=KEY).status == 202
    assert ask(port, "POST", "/image", key=OTHER_KEY).status == 202


def test_a_second_route_and_other_headers_are_no_second_budget(port: int) -> None:
    again = "/image/019abcde-0000-7000-8000-00000000000a/again"
    statuses = [
        ask(port, "POST", "/image" if n % 2 else again, key=KEY, headers={"X-Forwarded-For": f"1.1.1.{n}"}).status
        for n in range(5)
    ]
    assert statuses == [202, 202, 202, 429, 429]


def test_a_key_can_carry_its_own_limit(port: int, rows: Rows) -> None:
    rows.add(KEY, image_limit="5/hour")
    statuses = [ask(port, "POST", "/image", key=KEY) for _ in range(6)]
    assert [answer.status for answer in statuses] == [202] * 5 + [429]
    assert statuses[0].headers["ratelimit-policy"] == "5;w=3600"


@pytest.mark.parametrize("own", ["nonsense", "0/minute", ""])
def test_a_malformed_own_limit_falls_back_to_the_setting(port: int, rows: Rows, own: str) -> None:
    rows.add(KEY, image_limit=own)
    assert [ask(port, "POST", "/image", key=KEY).status for _ in range(4)] == [202, 202, 202, 429]


def test_only_counting_routes_carry_the_headers(port: int) -> None:
    assert "ratelimit-limit" not in ask(port, "GET", "/free", key=KEY).headers


def test_a_bad_key_spends_nothing(port: int) -> None:
    assert [ask(port, "POST", "/image", key="sk_" + "x" * 43).status for _ in range(5)] == [401] * 5
    assert ask(port, "POST", "/image", key=KEY).headers["ratelimit-remaining"] == "2"


def test_requests_at_once_are_not_counted_short(port: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ask(port, "GET", "/free", key=KEY)
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: ask(port, "POST", "/image", key=KEY).status, range(12)))
    assert sorted(statuses) == [202] * 3 + [429] * 9


def test_settings_of_other_programs_do_not_switch_limits_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATELIMIT_ENABLED", "false")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("RATELIMIT_ENABLED=false\nRATELIMIT_HEADERS_ENABLED=true\n")
    assert limits.build({"image": "1/minute"}).memory.enabled


def test_windows_in_memory_move_start_no_thread_and_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(windows.time, "time", lambda: now)
    counters = windows.Memory()
    until(lambda: not counters.timer.is_alive())
    threads = threading.active_count()
    assert counters.acquire_entry("one", 3, 60, 2) and not counters.acquire_entry("one", 3, 60, 2)
    now += 30
    assert counters.acquire_entry("one", 3, 60) and not counters.acquire_entry("one", 3, 60)
    assert counters.get_moving_window("one", 3, 60) == (now - 30, 3)
    now += 31
    assert counters.get_moving_window("one", 3, 60) == (now - 31, 1)
    assert counters.acquire_entry("two", 1, 60)
    now += 61
    assert counters.acquire_entry("three", 1, 60)
    assert list(counters._windows) == ["three"]
    assert threading.active_count() == threads


@pytest.fixture
def redis_port() -> Iterator[int]:
    """A Redis server of our own; without the program the test is skipped, unless services are required."""
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("redis-server is missing (apt-get install redis-server)")
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([program, "--port", str(port), "--save", "", "--bind", "127.0.0.1"], stdout=-3)
    try:
        until(lambda: answers_ping(port))
        yield port
    finally:
        server.kill()
        server.wait()


def answers_ping(port: int) -> bool:
    try:
        return b"PONG" in raw(port, b"PING\r\nQUIT\r\n")
    except ConnectionError:
        return False


def test_two_processes_share_their_counts_in_redis(rows: Rows, redis_port: int) -> None:
    url = f"redis://127.0.0.1:{redis_port}/0"
    one = make_app(make_site(rows, redis_url=url), OPERATIONS)
    two = make_app(make_site(rows, redis_url=url), OPERATIONS)
    with serve(one) as first, serve(two) as second:
        statuses = [ask(port, "POST", "/image", key=KEY).status for port in (first, second, first, second)]
    assert statuses == [202, 202, 202, 429]


@pytest.mark.parametrize("stalled", [False, True])
def test_without_redis_counting_goes_on_in_memory(rows: Rows, stalled: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port_of_redis = silent.getsockname()[1]
        if not stalled:
            silent.close()
        site = make_site(rows, redis_url=f"redis://127.0.0.1:{port_of_redis}/0")
        with serve(make_app(site, OPERATIONS)) as port:
            began = time.monotonic()
            assert [ask(port, "POST", "/image", key=KEY).status for _ in range(4)] == [202, 202, 202, 429]
            assert time.monotonic() - began < 3


@operation("PATCH", "/thing", answers={200: None}, into=OPERATIONS)
async def change_thing(call: Call) -> Response:
    """Change something."""
    return JSONResponse({})


@operation("POST", "/v1/things", answers={200: None}, into=OPERATIONS)
async def add_thing(call: Call) -> Response:
    """Add something, as the other face does."""
    return JSONResponse({})


@operation("POST", "/told", answers={200: None}, auth="none", into=OPERATIONS)
async def be_told(call: Call) -> Response:
    """Take a provider's word."""
    return JSONResponse({})


@pytest.mark.hazard(56)
def test_whatever_writes_counts_for_one_limit_of_the_key_and_nothing_else_does(rows: Rows) -> None:
    with serve(make_app(make_site(rows, rates={"write": "3/minute", "image": "9/minute"}), OPERATIONS)) as port:
        statuses = [ask(port, *what, key=KEY).status for what in (("PATCH", "/thing"), ("POST", "/image"))]
        assert [*statuses, ask(port, "POST", "/v1/things", key=KEY).status] == [200, 202, 200]
        refused = ask(port, "PATCH", "/thing", key=KEY)
        assert (refused.status, refused.json()["code"]) == (429, "rate_limited")
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert refused.headers["content-type"] == "application/problem+json"
        assert ask(port, "POST", "/image", key=KEY).status == 429
        other_face = ask(port, "POST", "/v1/things", key=KEY)
        assert (other_face.status, other_face.json()["error"]["type"]) == (429, "rate_limit_error")
        assert ask(port, "GET", "/free", key=KEY).status == 200
        assert ask(port, "POST", "/told").status == 200
        assert ask(port, "PATCH", "/thing", key=OTHER_KEY).status == 200


def test_a_stricter_limit_is_told_of_beside_the_one_for_writes(rows: Rows) -> None:
    with serve(make_app(make_site(rows), OPERATIONS)) as port:
        answers = [ask(port, "POST", "/image", key=KEY) for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 202, 429]
    assert answers[0].headers["ratelimit-limit"] == "3"
