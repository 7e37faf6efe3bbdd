"""Who takes places, memory or time that others need: trailers, unread answers, unsigned bodies, answered requests."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, running
from test_hostile_sockets import HOST, answers, webhook
from webserving import ask, raw, serve, until

from backend.web.calls import bodies
from backend.web.server import protocol, sockets

NOWHERE = b"POST /nowhere HTTP/1.1\r\n" + HOST
CHUNKED = NOWHERE + b"Transfer-Encoding: chunked\r\n\r\n"
PAGE = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("pressure")) as found:
        yield found


@contextmanager
def connected(port: int, sent: bytes = b"", *, room_bytes: int | None = None) -> Iterator[socket.socket]:
    """A connection that has said something; `room_bytes` is what its kernel takes unread."""
    with socket.socket() as line:
        if room_bytes:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
        line.settimeout(10)
        line.connect(("127.0.0.1", port))
        line.sendall(sent)
        yield line


def pace(seconds: float) -> None:
    """Be slow, as the test says one is."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end)


def is_refused(line: socket.socket, piece: bytes, most_bytes: int = 64 << 20) -> bool:
    """Whether somebody ends the connection before so much was sent."""
    try:
        for _ in range(most_bytes // len(piece)):
            line.sendall(piece)
    except (ConnectionError, TimeoutError):
        return True
    return False


@pytest.mark.hazard(48)
@pytest.mark.parametrize(
    ("starts", "goes_on"),
    [(b"0\r\n", b"a1: b\r\n" * 8192), (b"0\r\nx: ", b"b" * 65536), (b"5;x=", b"e" * 65536)],
    ids=["trailers", "one trailer", "an extension"],
)
def test_what_trails_a_body_ends(
    service: Service, monkeypatch: pytest.MonkeyPatch, starts: bytes, goes_on: bytes
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 60)
    with connected(service.port, CHUNKED + starts) as line:
        assert is_refused(line, goes_on)


def test_a_few_trailers_do_no_harm(service: Service) -> None:
    closing = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
    got = raw(service.port, CHUNKED + b"1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n" + closing)
    assert answers(got) == [b"404", b"200"]


def test_a_trailer_is_no_header(service: Service) -> None:
    """Otherwise a proxy that strips headers would not see what we believe."""
    chunked = b"POST /api/v2/campaigns HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n" + HOST
    trailer = f"0\r\nAuthorization: Bearer {service.admin}\r\n\r\n".encode()
    assert answers(raw(service.port, chunked + b"\r\n" + trailer)) == [b"401"]


@pytest.mark.hazard(48)
def test_empty_lines_after_an_answer_keep_no_connection_open(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.5)
    with connected(service.port, b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n") as line:
        assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
        until(lambda: is_refused(line, b"\r\n", 2), 4)


@pytest.mark.hazard(48)
def test_nobody_queues_requests_without_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waiting request costs memory, and one read from the socket may hold thousands."""
    monkeypatch.setattr(protocol, "MAX_HEAD_BYTES", 1 << 30)  # a head cut in two must not hide what is asked here
    got = b""
    with connected(service.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 5000) as line, suppress(ConnectionError):
        while chunk := line.recv(65536):
            got += chunk
    assert len(answers(got)) <= protocol.MOST_PIPELINED


@pytest.mark.hazard(48)
def test_a_body_that_goes_on_after_the_answer_is_not_heard_for_ever(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.3)
    with connected(service.port, NOWHERE + b"Content-Length: 1000000000\r\n\r\n") as line:
        assert line.recv(65536).startswith(b"HTTP/1.1 404 ")
        until(lambda: is_refused(line, b"x", 1), 5)


@pytest.mark.hazard(48, 53)
def test_an_answer_before_the_end_of_a_body_is_the_last_one(service: Service) -> None:
    with connected(service.port, NOWHERE + b"Content-Length: 2\r\n\r\nx") as line:
        got = line.recv(65536)
        assert got.startswith(b"HTTP/1.1 404 ") and b"connection: close" in got
        line.sendall(b"xGET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert line.recv(65536) == b""


def test_the_answer_to_a_body_that_is_too_large_is_not_lost(service: Service) -> None:
    """Closed while bytes come in, the kernel would reset the connection and drop what was not read yet."""
    head = webhook(b"Content-Length: 50000000")
    with connected(service.port, head) as line:
        for _ in range(30):
            line.sendall(b" " * 65536)
            pace(0.01)
        got = line.recv(65536)
        assert got.startswith(b"HTTP/1.1 413 ") and b"connection: close" in got
        until(lambda: is_refused(line, b"x", 1), 5)


@pytest.mark.hazard(48)
def test_whoever_does_not_read_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MOST_CONNECTIONS", 40)
    monkeypatch.setattr(protocol, "QUIET_S", 0.2)
    cut: list[protocol.Stage] = []
    end = protocol.BoundedProtocol._cut
    monkeypatch.setattr(protocol.BoundedProtocol, "_cut", lambda self: (cut.append(self._stage), end(self)))
    monkeypatch.setattr(protocol, "LOOK_EVERY_S", 0.05)
    with running(tmp_path) as service, ExitStack() as crowd:
        for _ in range(60):
            with suppress(ConnectionError):
                line = crowd.enter_context(connected(service.port, PAGE * 99, room_bytes=4096))
                line.recv(1)  # so that it is being answered before the next one comes
        until(lambda: _is_well(service), 20)
        for _ in range(20):
            assert ask(service.port, "GET", "/healthz").status == 200
        assert protocol.Stage.WHOLE in cut


def _is_well(service: Service) -> bool:
    try:
        return ask(service.port, "GET", "/healthz").status == 200
    except OSError:
        return False


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The addresses of connections that have ended."""
    found: list[object] = []
    end = protocol.BoundedProtocol.connection_lost
    monkeypatch.setattr(
        protocol.BoundedProtocol, "connection_lost", lambda self, exc: (found.append(self.client), end(self, exc))
    )
    monkeypatch.setattr(protocol, "STALLED_S", 1.0)
    monkeypatch.setattr(protocol, "LOOK_EVERY_S", 0.05)
    return found


@pytest.mark.hazard(48)
def test_an_answer_that_nobody_takes_is_cut_off_and_a_slow_download_goes_on(
    service: Service, lost: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    page_bytes = len(ask(service.port, "GET", "/openapi.json").body)
    pages = 99
    with (
        connected(service.port, PAGE * pages, room_bytes=4096) as deaf,
        connected(service.port, PAGE * pages, room_bytes=4096) as slow,
    ):
        deaf_at, slow_at = deaf.getsockname(), slow.getsockname()
        taken, began = 0, time.monotonic()
        while time.monotonic() < began + 4:  # many times as long as one may stall
            taken += len(slow.recv(2048))
            pace(0.05)
        assert deaf_at in lost and slow_at not in lost
        while taken < page_bytes * pages:
            got = len(slow.recv(1 << 20))
            assert got
            taken += got
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


@pytest.mark.hazard(48)
def test_a_last_answer_that_nobody_takes_does_not_hold_the_connection(
    lost: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = protocol.BoundedProtocol.connection_made

    def narrow(self: protocol.BoundedProtocol, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(self, transport)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 30_000})

    monkeypatch.setattr(protocol.BoundedProtocol, "connection_made", narrow)
    asked = b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET / HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
    with serve(answer) as port, connected(port, asked, room_bytes=4096) as line:
        until(lambda: line.getsockname() in lost, 5)


@pytest.mark.hazard(48)
def test_a_newcomer_is_told_when_everybody_else_is_being_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MOST_CONNECTIONS", 8)
    with running(tmp_path) as service, ExitStack() as crowd, _slow_reads(service) as reached:
        wanted = f"GET /api/v2/clients HTTP/1.1\r\nHost: x\r\nX-API-Key: {service.admin}\r\n\r\n".encode()
        for count in range(1, 8):
            crowd.enter_context(connected(service.port, wanted))
            until(lambda count=count: len(reached) == count)  # type: ignore[misc]
        assert ask(service.port, "GET", "/healthz").status == 503


@contextmanager
def _slow_reads(service: Service) -> Iterator[list[int]]:
    """Hold up every read of the database until the block ends."""
    reached: list[int] = []
    free, read = asyncio.Event(), service.ctx.db.read

    async def read_slowly(work: Callable[..., object]) -> object:
        reached.append(1)
        await free.wait()
        return await read(work)  # type: ignore[arg-type]

    service.ctx.db.read = read_slowly  # type: ignore[method-assign,assignment]
    try:
        yield reached
    finally:
        service.loop.call_soon_threadsafe(free.set)
        service.ctx.db.read = read  # type: ignore[method-assign]


@pytest.mark.hazard(48)
@pytest.mark.parametrize(
    "crowd_says",
    [b"", b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n", webhook(b"Content-Length: 9", body=b"x")],
    ids=["silent", "idle", "half a body"],
)
def test_a_slow_upload_outlives_whoever_only_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowd_says: bytes
) -> None:
    monkeypatch.setattr(sockets, "MOST_CONNECTIONS", 30)
    with running(tmp_path) as service, ExitStack() as crowd, connected(service.port) as upload:
        upload.sendall(webhook(b"Content-Length: 1000"))
        for _ in range(200):
            upload.sendall(b"x")
            pace(0.005)
            line = crowd.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            with suppress(OSError):
                line.sendall(crowd_says)
        upload.sendall(b"x" * 800)
        assert upload.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.hazard(14, 20)
@pytest.mark.parametrize("lacks", ["id", "timestamp", "signature", "now"])
def test_a_body_nobody_can_have_signed_is_not_waited_for(service: Service, lacks: str) -> None:
    head = webhook(b"Content-Length: 5000000")
    if lacks == "now":
        head = head.replace(b"%d" % time.time(), b"%d" % (time.time() - 400))
    else:
        head = head.replace(b"webhook-" + lacks.encode(), b"x")
    with connected(service.port, head) as line:
        assert line.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.hazard(20)
def test_strangers_share_a_bounded_memory_and_the_usual_webhook_needs_none_of_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STRANGERS_BYTES", 2 * (500_000 - bodies.FREE_BYTES) + 1)
    with ExitStack() as crowd:
        for _ in range(2):
            line = crowd.enter_context(connected(service.port, webhook(b"Content-Length: 500001", body=b"x" * 500_000)))
        until(lambda: bodies.strangers.held_bytes == bodies.STRANGERS_BYTES - 1)
        got = _last_answer(service.port, b"x" * 300_000)
        assert got.startswith(b"HTTP/1.1 503 ") and b"retry-after: 5" in got and b"problem+json" in got
        assert _last_answer(service.port, b"x" * 8000).startswith(b"HTTP/1.1 401 ")
        line.sendall(b"x")
        assert line.recv(65536).startswith(b"HTTP/1.1 401 ")
        assert _last_answer(service.port, b"x" * 300_000).startswith(b"HTTP/1.1 401 ")
    until(lambda: bodies.strangers.held_bytes == 0)


def _last_answer(port: int, body: bytes) -> bytes:
    with connected(port, webhook(b"Content-Length: %d" % len(body), body=body)) as line:
        return line.recv(65536)


@pytest.mark.hazard(20, 48)
def test_a_large_body_has_less_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGE_WITHIN_S", 0.3)
    with connected(service.port, webhook(b"Content-Length: 3000000", body=b" " * 2_000_000)) as line:
        began = time.monotonic()
        assert line.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 5
