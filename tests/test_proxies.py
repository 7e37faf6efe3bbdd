"""Caddy and nginx in front, a client beside an attacker: everybody's answers are their own, and no body is ever run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from api_service import Service, Tenant, running
from emulating import TOKEN, emulating
from proxies import NAMES, proxied
from twins import CHUNKED, OFFERS, Target, refused, request, staying
from webserving import ask

from backend.web.calls import metrics

pytestmark = pytest.mark.hazard(53)

ROUNDS = 150
PADDINGS = (10, 20_000, 200_000)  # so that a proxy sends a body in pieces; empty lines before a request are skipped


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("proxied")) as found:
        yield found


def payloads(start: bytes, hidden: bytes) -> list[bytes]:
    """A stranger's requests whose bodies a service might take for the next request on the proxy's connection."""
    at = Target(start, (), hidden)
    sent = [one for _, one in (*staying(at), *refused(at))]
    for offer in OFFERS.values():
        for padding in PADDINGS:
            body = b"\r\n" * padding + hidden
            sent.append(request(start, *offer, b"Content-Length: %d" % len(body), body=body))
            sent.append(request(start, *offer, CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)))
    return sent


@contextmanager
def attacked(port: int, sent: list[bytes]) -> Iterator[None]:
    """Strangers who send all of it again and again, as long as the block runs; each has done so once at least."""
    ends = threading.Event()

    def attack(first: int) -> None:
        number = first
        while number < first + len(sent) or not ends.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5) as line:
                line.sendall(sent[number % len(sent)])
                line.recv(65536)
            number += 1

    threads = [threading.Thread(target=attack, args=(len(sent) * share // 3,)) for share in range(3)]
    for one in threads:
        one.start()
    try:
        yield
    finally:
        ends.set()
        for one in threads:
            one.join(60)


@pytest.mark.parametrize("start", ["GET /healthz", "POST /mcp", "PATCH /api/v2/campaigns/none"])
@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_answered_what_another_asked(service: Service, tmp_path: Path, name: str, start: str) -> None:
    victim, deleted = service.tenant("victim"), deletions()
    # No line end: what the proxy sends next, which is the victim's request, would be the rest of the last header.
    hidden = f"DELETE /api/v2/campaigns/{victim.campaign_id} HTTP/1.1\r\nX-Request-Id: hidden\r\nX-Swallows: "
    sent = payloads(start.encode(), hidden.encode())
    with proxied(name, service.port, tmp_path) as port, attacked(port, sent):
        for number in range(ROUNDS):
            see_own(port, victim, f"round-{number}")
    assert ask(service.port, "GET", f"/api/v2/campaigns/{victim.campaign_id}", key=victim.key).status == 200
    assert deletions() == deleted


def see_own(port: int, who: Tenant, mark: str) -> None:
    """The client's own campaign comes, as the answer to the very request that asked."""
    got = ask(port, "GET", f"/api/v2/campaigns/{who.campaign_id}", key=who.key, headers={"X-Request-Id": mark})
    assert (got.status, got.headers["x-request-id"]) == (200, mark), got.body
    assert got.json()["id"] == who.campaign_id


def deletions() -> list[str]:
    """What the service, which is in this process, counted of requests to delete, whoever sent them."""
    lines = metrics.render().decode().splitlines()
    return sorted(one for one in lines if one.startswith('reelhook_http_requests_total{method="DELETE"'))


@pytest.mark.parametrize("name", NAMES)
def test_the_emulator_takes_a_body_for_a_body_too(tmp_path: Path, name: str) -> None:
    with emulating() as provider:
        made = [provider.create().json()["id"] for _ in range(3)]
        service = int(provider.server.origin.rpartition(":")[2])
        sent = payloads(b"GET /healthz", b"GET /emulator/ledger HTTP/1.1\r\nX-Swallows: ")
        with proxied(name, service, tmp_path) as port, attacked(port, sent):
            for number in range(ROUNDS):
                id = made[number % len(made)]
                got = ask(port, "GET", f"/v1/predictions/{id}", headers={"Authorization": f"Bearer {TOKEN}"})
                assert got.status == 200 and got.json()["id"] == id, got.body


@pytest.mark.parametrize("name", NAMES)
def test_a_proxy_lets_a_client_work_and_keeps_the_figures_inside(service: Service, tmp_path: Path, name: str) -> None:
    who = service.tenant()
    with proxied(name, service.port, tmp_path) as port:
        made = ask(port, "POST", "/api/v2/campaigns", key=who.key, json_body={"name": "b"})
        assert made.status == 201
        assert ask(port, "DELETE", f"/api/v2/campaigns/{made.json()['id']}", key=who.key).status == 204
        assert [ask(port, "GET", path).status for path in ("/metrics", "/readyz")] == [404, 404]
