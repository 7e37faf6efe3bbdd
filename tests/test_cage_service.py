"""The service while a client sends it the worst files there are: others are served, and a stop is a stop."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import hostile_files
import httpx
import pytest
from emulating import Provider, png, until
from gateway import Gateway, new_gateway
from processes import children, has_open, is_there, tree_mb
from workshop import Workshop

from backend.cli.processes import answer_of
from backend.core.errors import SettingsError
from backend.media.threads import fill
from backend.web.calls import problems

pytestmark = [
    pytest.mark.story,
    pytest.mark.hazard(54),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at as Linux shows them"),
]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What keeps a process busy for as long as it is let."""
    path = tmp_path_factory.mktemp("slow") / "slow.jpg"
    hostile_files.many_scans(path)
    return path.read_bytes()


@contextmanager
def service(folder: Path, provider: Provider) -> Iterator[tuple[Gateway, str]]:
    """A service that asks for keys, and an admin's."""
    made = new_gateway(folder, provider, AUTH_MODE="keys")
    said = answer_of(["keys", "create", "--name", "admin", "--admin", "--json"], folder, made.settings)
    try:
        made.start()
        until(lambda: len(children(pid_of(made))) == 2)
        yield made, json.loads(said)["key"]
    finally:
        made.abandon()
        made.close()


def pid_of(gateway: Gateway) -> int:
    assert gateway.process is not None
    return gateway.process.pid


def looking_at(gateway: Gateway) -> list[int]:
    """The processes that have been given what a client sent."""
    return [pid for pid in children(pid_of(gateway)) if has_open(pid, gateway.folder / "media" / "tmp")]


@contextmanager
def new_client(gateway: Gateway, admin: str, name: str) -> Iterator[httpx.Client]:
    with http(gateway, admin) as asking:
        client = asking.post("/api/v2/clients", json={"name": name}).json()["id"]
        key = asking.post("/api/v2/keys", json={"name": name, "client_id": client}).json()["key"]
    with http(gateway, key) as client:
        yield client


def http(gateway: Gateway, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=gateway.origin, headers=headers, timeout=60, trust_env=False)


def upload(client: httpx.Client, content: bytes) -> httpx.Response:
    return client.post("/api/v2/assets", files={"file": ("x", content)})


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def percentile(times_s: list[float], share: float) -> float:
    return sorted(times_s)[int(len(times_s) * share)]


def test_beside_three_clients_with_the_worst_files_everybody_else_is_served(
    tmp_path: Path, provider: Provider, slow: bytes
) -> None:
    files = [slow]
    for number, make in enumerate((hostile_files.key_frames, hostile_files.lying_film, hostile_files.flat_webp)):
        make(tmp_path / f"file {number}")
        files.append((tmp_path / f"file {number}").read_bytes())
    with service(tmp_path, provider) as (gateway, admin), ExitStack() as closing:
        friend, *clients = (
            closing.enter_context(new_client(gateway, admin, name)) for name in ("friend", "a", "b", "c")
        )
        done, answers = threading.Event(), list[httpx.Response]()
        upload(friend, png())

        def attack(client: httpx.Client, start: int) -> None:
            for content in itertools.cycle(files[start:] + files[:start]):
                if done.is_set():
                    return
                answers.append(upload(client, content))

        idle_mb, most_mb = tree_mb(pid_of(gateway)), 0.0
        enemies = [in_background(lambda one=one, at=at: attack(one, at)) for at, one in enumerate(clients)]
        until(lambda: looking_at(gateway))
        health_s, upload_s, until_s = list[float](), list[float](), time.monotonic() + 10
        while time.monotonic() < until_s:
            began = time.monotonic()
            assert friend.get("/healthz").status_code == 200
            health_s.append(time.monotonic() - began)
            if len(health_s) % 10 == 0:
                began = time.monotonic()
                assert upload(friend, png()).status_code == 201
                upload_s.append(time.monotonic() - began)
            most_mb = max(most_mb, tree_mb(pid_of(gateway)))
        done.set()
        for thread in enemies:
            thread.join(40)
        assert answers and {answer.status_code for answer in answers} <= {201, 422}, answers
        assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"invalid_media"}
        assert percentile(health_s, 0.99) < 0.5, sorted(health_s)[-5:]
        assert percentile(upload_s, 0.99) < 3, sorted(upload_s)[-5:]
        assert most_mb - idle_mb < 3 * 300, (idle_mb, most_mb)
        assert gateway.stop(30) == 0
        assert '"level": "error"' not in gateway.log()


def test_a_stop_while_the_worst_file_is_looked_at_ends_in_time(tmp_path: Path, provider: Provider, slow: bytes) -> None:
    with service(tmp_path, provider) as (gateway, admin), new_client(gateway, admin, "enemy") as client:
        answers: list[httpx.Response] = []
        sending = [in_background(lambda: answers.append(upload(client, slow))) for _ in range(2)]
        until(lambda: looking_at(gateway))
        pids = children(pid_of(gateway))
        began = time.monotonic()
        assert gateway.stop(30) == 0
        assert time.monotonic() - began < 20
        for thread in sending:
            thread.join(20)
        assert [answer.status_code for answer in answers] == [503, 503]
        until(lambda: not any(map(is_there, pids)))
        assert list((tmp_path / "media" / "tmp").iterdir()) == []


def test_a_client_that_leaves_ends_the_work_on_its_file(tmp_path: Path, provider: Provider, slow: bytes) -> None:
    with service(tmp_path, provider) as (gateway, admin), new_client(gateway, admin, "hasty") as client:
        key = client.headers["authorization"]
        body = b'--b\r\nContent-Disposition: form-data; name=file; filename="x"\r\n\r\n' + slow + b"\r\n--b--\r\n"
        head = (
            f"POST /api/v2/assets HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", int(gateway.origin.rpartition(":")[2]))) as line:
            line.sendall(head.encode() + body)
            (pid,) = until(lambda: looking_at(gateway))
        until(lambda: not is_there(pid), 5)
        until(lambda: not list((tmp_path / "media" / "tmp").iterdir()))
        assert upload(client, png()).status_code == 201


def test_a_service_that_is_killed_leaves_no_process_behind(tmp_path: Path, provider: Provider, slow: bytes) -> None:
    with service(tmp_path, provider) as (gateway, admin), new_client(gateway, admin, "enemy") as client:

        def send() -> None:
            with pytest.raises(httpx.TransportError):
                upload(client, slow)

        sending = in_background(send)
        until(lambda: looking_at(gateway))
        pids = children(pid_of(gateway))
        assert len(pids) >= 2
        os.kill(pid_of(gateway), signal.SIGKILL)
        until(lambda: not any(map(is_there, pids)), 5)
        sending.join(20)


def test_a_process_that_is_killed_is_invalid_media_and_the_next_file_is_looked_at(
    tmp_path: Path, provider: Provider, slow: bytes
) -> None:
    with service(tmp_path, provider) as (gateway, admin), new_client(gateway, admin, "unlucky") as client:
        answers: list[httpx.Response] = []
        sending = in_background(lambda: answers.append(upload(client, slow)))
        (pid,) = until(lambda: looking_at(gateway))
        os.kill(pid, signal.SIGKILL)
        sending.join(20)
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(422, "invalid_media")]
        assert upload(client, png()).status_code == 201


def test_a_client_with_more_files_than_its_place_takes_in_time_is_told_to_wait(
    tmp_path: Path, provider: Provider, slow: bytes
) -> None:
    with service(tmp_path, provider) as (gateway, admin), new_client(gateway, admin, "many") as client:
        answers: list[httpx.Response] = []
        sending = [in_background(lambda: answers.append(upload(client, slow))) for _ in range(3)]
        until(lambda: looking_at(gateway))
        assert len(looking_at(gateway)) == 1
        for thread in sending:
            thread.join(60)
        assert sorted(answer.status_code for answer in answers) == [422, 429, 429]
        waiting = [answer for answer in answers if answer.status_code == 429]
        assert all(one.headers["retry-after"] and one.json()["code"] == "media_busy" for one in waiting)
        assert upload(client, png()).status_code == 201


def test_a_cage_that_cannot_be_started_delays_uploads_and_outputs_and_loses_none(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = bench.ask()["id"]
    bench.submit_next()
    bench.clock.forward(11)
    bench.look("processing")
    assert bench.row(id).status == "storing"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        answer = bench.http.post("/api/v2/assets", files={"file": ("x.png", png())})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert bench.look("storing") == [id]
        assert bench.row(id).status == "storing"
    bench.forward(60)
    assert bench.look("storing") == [id]
    assert bench.row(id).status == "completed"
    bench.upload(png())


def test_a_service_has_its_threads_from_the_start(tmp_path: Path, provider: Provider) -> None:
    with service(tmp_path, provider) as (gateway, admin), new_client(gateway, admin, "busy") as client:
        before = _threads_of(pid_of(gateway))
        senders = [in_background(lambda: upload(client, png())) for _ in range(12)]
        for thread in senders:
            thread.join(40)
        assert _threads_of(pid_of(gateway)) == before


def _threads_of(pid: int) -> str:
    return next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Threads"))


def test_a_thread_that_cannot_be_had_is_an_answer_to_come_back_later() -> None:
    answer = problems.unexpected(RuntimeError("can't start new thread"))
    assert (answer.status, answer.retry_after) == (503, 5)
    assert problems.unexpected(RuntimeError("what nobody foresaw")).status == 500


def test_too_few_threads_are_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("few_2"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with ThreadPoolExecutor(3, "few") as pool, pytest.raises(SettingsError, match="ulimit -u"):
        fill(pool, 3)
