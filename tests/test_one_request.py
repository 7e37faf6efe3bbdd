"""A request is one request: whatever it offers or announces, its body is never run, and every answer is its own."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import pytest
from api_service import Service, running
from emulating import IMAGE, TOKEN, Provider, emulating
from test_proxies import deletions
from twins import CHUNKED, OFFERS, Target, chunks, closing, refused, request, staying
from webserving import ask, raw

from backend.http.serving import StrictProtocol

pytestmark = pytest.mark.hazard(53)

NEXT = request(b"GET /healthz", b"X-Request-Id: next", b"Connection: close")
Told = list[tuple[int, str]]  # of each answer the status, and which request it belongs to
Way = Callable[[int, bytes], bytes]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("one")) as found:
        yield found


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with emulating() as found:
        yield found


def byte_by_byte(port: int, sent: bytes) -> bytes:
    """Each byte in a packet of its own, until somebody has had enough."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line, suppress(ConnectionError):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):
            for at in range(len(sent)):
                line.send(sent[at : at + 1])
        while chunk := line.recv(65536):
            got += chunk
    return got


@pytest.fixture(params=[raw, byte_by_byte])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """How the bytes come: at once, or one by one, also where the kernel puts some together."""
    receive = StrictProtocol.data_received

    def split(self: StrictProtocol, data: bytes) -> None:
        for at in range(len(data)):
            if self.parser is not None:
                receive(self, data[at : at + 1])

    if request.param is byte_by_byte:
        monkeypatch.setattr(StrictProtocol, "data_received", split)
    return request.param


def told(got: bytes) -> Told:
    """Who was answered what; a refusal of what is no request is nobody's."""
    heads = re.findall(rb"HTTP/1\.1 (?!100)(\d+)[^\r]*\r\n(.*?)\r\n\r\n", got, re.DOTALL)
    marks = [re.search(rb"x-request-id: (first|next|hidden|trailer)(?:\r|$)", head) for _, head in heads]
    return [(int(status), mark[1].decode() if mark else "") for (status, _), mark in zip(heads, marks, strict=True)]


def tell(port: int, way: Way, cases: Iterable[tuple[str, bytes]]) -> dict[str, Told]:
    """What is told on a connection that sends the case and then one more request."""
    return {name: told(way(port, sent + NEXT)) for name, sent in cases}


@pytest.fixture(params=["POST /api/v2/campaigns", "POST /mcp", "GET /healthz", "DELETE /api/v2/campaigns/none"])
def target(service: Service, request: pytest.FixtureRequest) -> Iterator[Target]:
    """A place that reads its body or not; what its body asks for, in an admin's name, never happens."""
    who, deleted = service.tenant(), deletions()
    key = f"X-API-Key: {service.admin}".encode()
    hidden = b"DELETE /api/v2/campaigns/%s HTTP/1.1\r\nHost: x\r\nX-Request-Id: hidden\r\n%s\r\n\r\n"
    yield Target(request.param.encode(), (key,), hidden % (who.campaign_id.encode(), key))
    assert service.ask("GET", f"/api/v2/campaigns/{who.campaign_id}").status == 200
    if "DELETE" not in request.param:
        assert deletions() == deleted


def everywhere(got: dict[str, Told], right: Told) -> dict[str, Told]:
    """The one right answer for each case."""
    return {name: right for name in got}


STATUS = {
    b"POST /api/v2/campaigns": 400,
    b"POST /mcp": 400,
    b"GET /healthz": 200,
    b"DELETE /api/v2/campaigns/none": 404,
}


def test_a_body_is_never_the_next_request(service: Service, target: Target, way: Way) -> None:
    got = tell(service.port, way, staying(target))
    own = (STATUS[target.start], "first")
    if is_answered_early(target, way):
        assert set(map(tuple, got.values())) <= {(own,), (own, (200, "next"))}
    else:
        assert got == everywhere(got, [own, (200, "next")])


def is_answered_early(target: Target, way: Way) -> bool:
    """A refusal may come before its body does; then it is the last answer."""
    return target.start.startswith(b"DELETE") and way is byte_by_byte


def test_a_close_is_a_close_whatever_is_offered_beside_it(service: Service, target: Target, way: Way) -> None:
    got = tell(service.port, way, closing(target))
    assert got == everywhere(got, [(STATUS[target.start], "first")])


def test_a_close_that_trails_a_body_ends_the_connection_and_not_the_next_request(service: Service) -> None:
    """Else whoever's request comes next on a proxy's connection waits for an answer that never comes."""
    key = f"X-API-Key: {service.admin}".encode()
    last = request(b"POST /api/v2/campaigns", key, CHUNKED, body=chunks(b"{}", b"Connection: close"))
    with socket.create_connection(("127.0.0.1", service.port), timeout=3) as line:
        line.sendall(last)
        got = line.makefile("rb").read()  # to the end of the connection: none is kept open for a further request
    assert [status for status, _ in told(got)] == [422]


def test_an_old_client_gets_no_chunks(service: Service) -> None:
    """HTTP/1.0 has none: an answer of unknown length ends with its connection."""
    key = f"X-API-Key: {service.admin}".encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        line.sendall(request(b"GET /api/v2/events", key).replace(b"HTTP/1.1", b"HTTP/1.0"))
        got = b""
        while not got.endswith(b"\n\n"):
            got += line.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and b"keep-alive" not in head and b"connection: close" in head
    assert re.match(rb"(id|retry|event|:)", body), body


def test_what_is_no_request_is_refused_once_and_ends_the_connection(service: Service, target: Target, way: Way) -> None:
    got = tell(service.port, way, refused(target))
    own = (STATUS[target.start], "first")  # a body that breaks after its request was answered, or while it is read
    assert {name: one for name, one in got.items() if one not in ([(400, "")], [own])} == {}
    if way is raw:
        assert got == everywhere(got, [(400, "")])


def test_a_refusal_waits_for_the_answers_before_it(service: Service, way: Way) -> None:
    slow = request(b"POST /mcp", b"X-Request-Id: first", b"X-API-Key: " + service.admin.encode(), b"Content-Length: 2")
    for junk in (b"GET / HTTP/9\r\n\r\n", request(b"POST /healthz", b"Transfer-Encoding: chunked", body=b"x\r\n")):
        got = told(way(service.port, slow + b"{}" + request(b"GET /healthz", b"X-Request-Id: next") + junk + NEXT))
        assert got[:2] == [(400, "first"), (200, "next")]
        assert got[2:] in ([(400, "")], [(200, "")])  # the last: what answers early does not see the body break


def test_many_requests_in_one_go_are_answered_one_by_one(service: Service, way: Way) -> None:
    one = request(b"GET /healthz", *OFFERS["h2c"], b"X-Request-Id: first", b"Content-Length: 4", body=b"GET ")
    assert told(way(service.port, one * 60 + NEXT)) == [(200, "first")] * 60 + [(200, "next")]


def test_a_body_is_read_after_the_word_that_it_is_waited_for(service: Service) -> None:
    body = b'{"name": "a"}'
    head = request(b"POST /api/v2/clients", *OFFERS["h2c"], b"Expect: 100-continue", b"Content-Length: %d" % len(body))
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        line.sendall(head.replace(b"\r\n\r\n", f"\r\nX-API-Key: {service.admin}\r\n\r\n".encode()))
        assert line.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(body)
        assert line.recv(65536).startswith(b"HTTP/1.1 201 ")


def test_whoever_waits_for_the_word_and_is_refused_instead_sends_no_body_on_this_connection(service: Service) -> None:
    head = request(b"POST /api/v2/clients", b"Expect: 100-continue", b"Content-Length: 50")
    got = raw(service.port, head)
    assert told(got) == [(401, "")] and b"connection: close" in got and b"100 Continue" not in got


def test_the_emulator_takes_one_request_for_one(provider: Provider, way: Way) -> None:
    port = int(provider.server.origin.rpartition(":")[2])
    token, made = f"Authorization: Bearer {TOKEN}".encode(), provider.ledger
    wanted = b'{"input": {"prompt": "a fox"}}'
    hidden = request(f"POST /v1/models/{IMAGE}/predictions".encode(), token, b"Content-Length: 30", body=wanted)
    target = Target(b"POST /v1/predictions", (token,), hidden)
    answers = tell(port, way, staying(target))
    assert answers == everywhere(answers, [(400, ""), (200, "")])
    answers = tell(port, way, closing(target))
    assert answers == everywhere(answers, [(400, "")])
    answers = tell(port, way, refused(target))
    assert answers == everywhere(answers, [(400, "")])
    assert provider.ledger == made
    assert ask(port, "GET", "/healthz").status == 200
