"""Raw sockets: requests that mean two things, never end, or never begin; and everybody else is still answered."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from api_service import Service, running
from webserving import ask, raw, until

from backend.web.calls import bodies
from backend.web.server import entry, sockets

HOST = b"Host: localhost\r\n"
SMUGGLED = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: smuggled\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("sockets")) as found:
        yield found


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /api/v2/campaigns HTTP/1.1\r\n" + b"".join(one + b"\r\n" for one in headers) + b"\r\n" + body


AMBIGUOUS = {
    "length and chunks": post(HOST[:-2], b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": post(HOST[:-2], b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "two lengths": post(HOST[:-2], b"Content-Length: 0", b"Content-Length: 70"),
    "list of lengths": post(HOST[:-2], b"Content-Length: 0, 70"),
    "negative length": post(HOST[:-2], b"Content-Length: -1"),
    "length with a sign": post(HOST[:-2], b"Content-Length: +0"),
    "length in hex": post(HOST[:-2], b"Content-Length: 0x0"),
    "huge length": post(HOST[:-2], b"Content-Length: 99999999999999999999999999"),
    "odd encoding": post(HOST[:-2], b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked twice": post(HOST[:-2], b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "chunked, then more": post(HOST[:-2], b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "space before the colon": post(HOST[:-2], b"Content-Length : 0"),
    "folded header": post(HOST[:-2], b"X-A: b", b" Content-Length: 0", b"Transfer-Encoding", body=b""),
    "chunk of no size": post(HOST[:-2], b"Transfer-Encoding: chunked", body=b"g\r\n\r\n"),
    "chunk beyond any size": post(HOST[:-2], b"Transfer-Encoding: chunked", body=b"ffffffffffffffffff\r\n"),
    "NUL in a header": post(HOST[:-2], b"X-A: \0"),
    "bare CR in a header": post(HOST[:-2], b"X-A: b\rContent-Length: 0"),
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
    "HTTP/9.9": b"GET /healthz HTTP/9.9\r\n" + HOST + b"\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\n" + HOST + b"Host: other.example\r\n\r\n",
}


def answers(got: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d\d\d) ", got)


@pytest.mark.hazard(47)
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_that_means_two_things_is_refused_and_hides_no_other(service: Service, name: str) -> None:
    got = raw(service.port, AMBIGUOUS[name] + SMUGGLED)
    if name == "two hosts":  # where this one ends is certain: the next one on the line is nobody's secret
        assert answers(got) == [b"400", b"200"]
        return
    assert answers(got) == [b"400"], got[:500]
    assert b"smuggled" not in got and b"openapi" not in got


@pytest.mark.hazard(47)
def test_what_is_no_http_gets_the_usual_shape(service: Service) -> None:
    head, _, body = raw(service.port, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n").partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (400, "invalid_request")
    assert b"content-type: application/problem+json" in head and b"connection: close" in head
    assert f"x-request-id: {problem['request_id']}".encode() in head


@pytest.mark.hazard(47)
@pytest.mark.parametrize("host", [b"other.example", b"", b"h/?", b"localhost@other.example", b"[::1", b"\xff"])
def test_no_answer_is_made_of_the_host_header(service: Service, host: bytes) -> None:
    got = raw(service.port, b"GET /api/v2/campaigns/ HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert answers(got)[0] in (b"400", b"404")
    assert not host or host not in got
    assert b"location:" not in got.lower()


def webhook(*headers: bytes, body: bytes = b"", id: bytes = b"msg") -> bytes:
    """A webhook that looks signed, until somebody checks."""
    path = b"/webhooks/replicate/01890000-0000-7000-8000-000000000000/x"
    stamp = (b"webhook-id: " + id, b"webhook-timestamp: %d" % time.time(), b"webhook-signature: v1,x")
    return b"".join(one + b"\r\n" for one in (b"POST " + path + b" HTTP/1.1", HOST[:-2], *stamp, *headers, b"")) + body


WAITING = {
    "nothing": b"",
    "half a line": b"GET /heal",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b",
    "after an answer": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half of a second head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal",
}


@pytest.mark.hazard(48)
@pytest.mark.parametrize("name", WAITING)
def test_a_connection_that_only_waits_is_closed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("backend.web.server.protocol.HEAD_WITHIN_S", 0.3)
    config = entry.config
    monkeypatch.setattr(entry, "config", lambda app: _impatient(config(app)))
    with running(tmp_path_factory.mktemp("waiting")) as service:
        began = time.monotonic()
        raw(service.port, WAITING[name])
        assert time.monotonic() - began < 5


def _impatient(config: object) -> object:
    config.timeout_keep_alive = 0.3  # type: ignore[attr-defined]
    return config


@pytest.mark.hazard(20, 48)
@pytest.mark.parametrize("signed", [False, True])
def test_a_body_that_never_ends_is_408_for_strangers_and_clients(
    service: Service, monkeypatch: pytest.MonkeyPatch, signed: bool
) -> None:
    monkeypatch.setattr("backend.web.calls.bodies.WITHIN_S", 0.4)
    monkeypatch.setitem(_defaults(), "within_s", 0.4)
    key = f"Authorization: Bearer {service.admin}\r\n".encode()
    head = b"POST /api/v2/campaigns HTTP/1.1\r\n" + HOST + key + b"Content-Length: 100\r\n\r\n"
    began = time.monotonic()
    got = _drip(service.port, head if signed else webhook(b"Content-Length: 100"))
    assert answers(got) == [b"408"] and b"application/problem+json" in got
    assert time.monotonic() - began < 5


def _defaults() -> dict[str, object]:
    defaults = bodies.read.__kwdefaults__
    assert defaults is not None
    return defaults


def _drip(port: int, head: bytes) -> bytes:
    """A byte now and then, until somebody has enough of it."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(head)
        line.settimeout(0.05)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                if not (chunk := line.recv(65536)):
                    break
                got += chunk
            except TimeoutError:
                line.sendall(b"x")
    return got


@pytest.mark.hazard(48)
@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"GET /heal",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        webhook(b"Content-Length: 1000", body=b"x"),
    ],
    ids=["nothing", "half a head", "one request", "half a body"],
)
def test_a_house_full_of_silent_connections_still_answers_others(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, says: bytes
) -> None:
    monkeypatch.setattr(sockets, "MOST_CONNECTIONS", 40)
    with running(tmp_path_factory.mktemp("full")) as service, ExitStack() as crowd:
        lines = [crowd.enter_context(socket.create_connection(("127.0.0.1", service.port))) for _ in range(100)]
        for line in lines:
            try:
                line.sendall(says)
            except OSError:
                pass  # it has made room already
        for _ in range(20):
            assert ask(service.port, "GET", "/healthz").status == 200
        lines[0].settimeout(5)
        until(lambda: _is_closed(lines[0]))


def _is_closed(line: socket.socket) -> bool:
    try:
        return line.recv(65536) == b""
    except OSError:
        return True


@pytest.mark.hazard(48)
def test_whoever_is_being_answered_does_not_make_room(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MOST_CONNECTIONS", 20)
    with running(tmp_path_factory.mktemp("busy")) as service, ExitStack() as crowd:
        reached, free = threading.Event(), threading.Event()
        read = service.ctx.db.read

        async def read_slowly(work: object) -> object:
            if not reached.is_set():
                reached.set()
                await asyncio.to_thread(free.wait, 20)
            return await read(work)  # type: ignore[arg-type]

        service.ctx.db.read = read_slowly  # type: ignore[method-assign]
        busy = crowd.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        busy.sendall(f"GET /api/v2/clients HTTP/1.1\r\nHost: x\r\nX-API-Key: {service.admin}\r\n\r\n".encode())
        assert reached.wait(10)
        for _ in range(60):
            crowd.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        assert ask(service.port, "GET", "/healthz").status == 200
        free.set()
        busy.settimeout(10)
        assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.hazard(48)
@pytest.mark.parametrize(("files", "most"), [(20_000, 4000), (1024, 624), (256, 128), (resource.RLIM_INFINITY, 4000)])
def test_fewer_connections_are_taken_than_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, files: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
    assert sockets.most_connections() == most
