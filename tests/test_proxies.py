"""Caddy and nginx in front, a client beside an attacker: everybody's answers are their own, and no body is ever run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from api_service import Service, Tenant, running
from emulating import TOKEN, emulating
from proxies import NAMES, proxied
from webserving import ask

ROUNDS = 150


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("proxied")) as found:
        yield found


def payloads(hidden: bytes, path: bytes) -> Iterator[bytes]:
    """Requests of a stranger that say, each in another way, that the hidden one in their body is a request."""
    sized = b"Content-Length: %d" % len(hidden)
    chunked = b"Transfer-Encoding: chunked"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)
    for upgrade in (b"websocket", b"h2c", b"anything/1"):
        offered = (b"Connection: Upgrade", b"Upgrade: " + upgrade)
        for method in (b"GET", b"POST"):
            yield _request(method, path, *offered, sized, body=hidden)
            yield _request(method, path, *offered, chunked, body=chunks)
    yield _request(b"GET", path, b"Connection: close, Upgrade", b"Upgrade: x", sized, body=hidden)
    yield _request(b"POST", path, b"Expect: 100-continue", sized, body=hidden)
    yield _request(b"GET", path, b"Content-Length: 0", chunked, body=b"0\r\n\r\n" + hidden)
    yield _request(b"GET", path, b"Transfer-Encoding: xchunked", sized, body=hidden)
    yield _request(b"GET", path, chunked, body=b"0;a\n\r\n" + hidden)
    yield _request(b"GET", path, chunked, body=b"+0\r\n\r\n" + hidden)
    yield _request(b"CONNECT", path, body=hidden)


def _request(method: bytes, path: bytes, *headers: bytes, body: bytes) -> bytes:
    return b"\r\n".join((method + b" " + path + b" HTTP/1.1", b"Host: localhost", *headers, b"", body))


@pytest.mark.hazard(53)
@pytest.mark.parametrize("path", ["/healthz", "/mcp", "/api/v2/campaigns"])
@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_answered_what_another_asked(service: Service, tmp_path: Path, name: str, path: str) -> None:
    victim, deleted = service.tenant("victim"), deletions(service.port)
    hidden = f"DELETE /api/v2/campaigns/{victim.campaign_id} HTTP/1.1\r\nX-Request-Id: hidden\r\n"
    with proxied(name, service.port, tmp_path) as port, attacked(port, f"{hidden}X-Swallows: ".encode(), path.encode()):
        for number in range(ROUNDS):
            see_own(port, victim, f"round-{number}")
    assert ask(service.port, "GET", f"/api/v2/campaigns/{victim.campaign_id}", key=victim.key).status == 200
    assert deletions(service.port) == deleted


def see_own(port: int, who: Tenant, mark: str) -> None:
    """The client's own campaign comes, as the answer to the very request that asked."""
    got = ask(port, "GET", f"/api/v2/campaigns/{who.campaign_id}", key=who.key, headers={"X-Request-Id": mark})
    assert (got.status, got.headers["x-request-id"]) == (200, mark), got.body
    assert got.json()["id"] == who.campaign_id


def deletions(port: int) -> list[str]:
    """What the service counted of requests that delete."""
    lines = ask(port, "GET", "/metrics").body.decode().splitlines()
    return sorted(line for line in lines if line.startswith('reelhook_http_requests_total{method="DELETE"'))


class attacked:
    """A stranger who sends all payloads again and again, as long as the block runs."""

    def __init__(self, port: int, hidden: bytes, path: bytes) -> None:
        self._port, self._sent = port, list(payloads(hidden, path))
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._attack, args=(first,)) for first in range(3)]

    def __enter__(self) -> None:
        for one in self._threads:
            one.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for one in self._threads:
            one.join(30)

    def _attack(self, first: int) -> None:
        number = first
        while not self._ended.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=2) as line:
                line.sendall(self._sent[number % len(self._sent)])
                line.recv(65536)
            number += 1


@pytest.mark.hazard(53)
@pytest.mark.parametrize("name", NAMES)
def test_the_emulator_takes_a_body_for_a_body_too(tmp_path: Path, name: str) -> None:
    hidden = b"GET /healthz HTTP/1.1\r\nX-Swallows: "
    with emulating() as provider:
        made = [provider.create().json()["id"] for _ in range(3)]
        service = int(provider.server.origin.rpartition(":")[2])
        with proxied(name, service, tmp_path) as port, attacked(port, hidden, b"/healthz"):
            for number in range(ROUNDS):
                own = f"/v1/predictions/{made[number % len(made)]}"
                got = ask(port, "GET", own, headers={"Authorization": f"Bearer {TOKEN}"})
                assert got.status == 200 and got.json()["id"] in own, got.body
