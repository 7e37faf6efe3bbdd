"""The way of a request through the web layer, over real sockets."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import Field
from starlette.responses import JSONResponse, Response
from webserving import ADMIN_KEY, DEV, KEY, ask, make_app, make_rows, make_site, raw, serve, until

from backend import logs
from backend.core.errors import InvalidInput
from backend.core.requests import Strict
from backend.web.api import webhook_endpoints  # noqa: F401  # its routes
from backend.web.calls import bodies, inputs
from backend.web.calls.operation import OPERATIONS as ROUTES
from backend.web.calls.operation import Call, Operation, operation
from backend.web.server import middleware

OPERATIONS: list[Operation] = []
THING = "019abcde-0000-7000-8000-00000000000a"


class ThingInput(Strict):
    name: str = Field(max_length=50)
    count: int = 1
    ratio: float | None = None
    nested: dict[str, str] = {}


class ThingQuery(inputs.Query):
    limit: int = Field(20, ge=1, le=100)
    status: list[str] = []
    q: str | None = None


class ThingView(Strict):
    name: str


@operation("POST", "/api/v2/things", body=ThingInput, answers={201: ThingView}, into=OPERATIONS)
async def create_thing(call: Call) -> Response:
    """Make a thing."""
    return JSONResponse({"name": call.body.name, "key": call.idempotency_key}, 201)


@operation("GET", "/api/v2/things", query=ThingQuery, answers={200: ThingView}, into=OPERATIONS)
async def list_things(call: Call) -> Response:
    """List things."""
    return JSONResponse(call.query.model_dump())


@operation("GET", "/api/v2/things/{id}", answers={200: ThingView}, into=OPERATIONS)
async def show_thing(call: Call) -> Response:
    """Show a thing."""
    return JSONResponse({"id": call.path["id"], "client": call.who.client_id})


@operation("DELETE", "/api/v2/things/{id}", answers={204: None}, auth="admin", into=OPERATIONS)
async def delete_thing(call: Call) -> Response:
    """Forget a thing."""
    return Response(status_code=204)


@operation("GET", "/api/v2/things/newest", answers={200: ThingView}, into=OPERATIONS)
async def show_newest(call: Call) -> Response:
    """Show the newest thing."""
    return JSONResponse({"newest": True})


@operation("GET", "/api/v2/once", answers={200: ThingView}, is_write=True, into=OPERATIONS)
async def show_once(call: Call) -> Response:
    """Show what is shown once."""
    return JSONResponse({"id": THING, "client": None})


@operation("GET", "/api/v2/broken", answers={200: ThingView}, into=OPERATIONS)
async def show_broken(call: Call) -> Response:
    """Fail in a way nobody foresaw."""
    raise RuntimeError("the database said r8_0123456789abcdef")


@operation("GET", "/api/v2/refused", answers={200: ThingView}, into=OPERATIONS)
async def show_refused(call: Call) -> Response:
    """Refuse."""
    raise InvalidInput.of("a.b", "is wrong")


@operation("GET", "/api/v2/file/{id}", answers={200: "image/png"}, auth="media", into=OPERATIONS)
async def show_file(call: Call) -> Response:
    """Show a file."""
    return Response(b"x")


@operation("POST", "/webhooks/{provider}/{generation_id}/{nonce}", answers={200: None}, auth="none", into=OPERATIONS)
async def receive(call: Call) -> Response:
    """Take a webhook."""
    return Response(await bodies.read(call.request, cap_bytes=2000, within_s=0.5))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve(make_app(make_site(make_rows()), OPERATIONS)) as found:
        yield found


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """What was logged, once that many requests were: a line is written after its answer is sent."""
    logs.configure()
    seen = ""

    def wait_for(requests: int) -> str:
        def enough() -> bool:
            nonlocal seen
            seen += capfd.readouterr().err
            return seen.count('"event": "request"') >= requests

        until(enough)
        return seen

    return wait_for


def is_problem(answer: Any, status: int, code: str | None = None) -> dict[str, Any]:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem)
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert code is None or problem["code"] == code
    return dict(problem)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/api/v2/things/", 404),
        ("GET", "/%00", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("PUT", "/api/v2/things", 405),
        ("TRACE", "/api/v2/things", 405),
        ("GET", "/api/v2/things/nonsense", 404),
        ("GET", "/api/v2/things/%00", 404),
        ("GET", f"/api/v2/things/{THING.upper()}", 404),
        ("DELETE", f"/api/v2/things/{THING}", 403),
        ("GET", "/api/v2/broken", 500),
        ("GET", "/api/v2/refused", 422),
        ("GET", f"/api/v2/file/{THING}?exp=1&sig=x", 403),
    ],
)
def test_every_refusal_has_the_same_shape(port: int, method: str, path: str, status: int) -> None:
    is_problem(ask(port, method, path, key=KEY), status)


def test_405_names_every_method_of_the_path(port: int) -> None:
    assert ask(port, "PUT", f"/api/v2/things/{THING}").headers["allow"] == "DELETE, GET, HEAD"


def test_a_fixed_path_wins_over_a_parameter(port: int) -> None:
    assert ask(port, "GET", "/api/v2/things/newest", key=KEY).json() == {"newest": True}


def test_an_unforeseen_error_says_nothing_outside_and_everything_inside(
    port: int, logged: Callable[[int], str]
) -> None:
    answer = ask(port, "GET", "/api/v2/broken", key=KEY, headers={"X-Request-Id": "find-me.1"})
    problem = is_problem(answer, 500, "internal_error")
    assert problem["request_id"] == "find-me.1"
    assert b"database" not in answer.body
    lines = [json.loads(line) for line in logged(1).splitlines()]
    failed = next(line for line in lines if line["event"] == "request_failed")
    assert failed["request_id"] == "find-me.1"
    assert "the database said r8_***" in failed["exception"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a\tb", "\u00e9", "<script>"])
def test_an_insane_request_id_is_replaced(port: int, given: str) -> None:
    answer = ask(port, "GET", "/healthz", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_every_answer_carries_the_security_headers(port: int) -> None:
    for path in ("/healthz", "/nothing", "/api/v2/broken", "/docs"):
        headers = ask(port, "GET", path, key=KEY).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_a_valid_body_reaches_the_handler(port: int) -> None:
    answer = ask(port, "POST", "/api/v2/things", key=KEY, json_body={"name": "a"}, headers={"Idempotency-Key": "k 1"})
    assert (answer.status, answer.json()) == (201, {"name": "a", "key": "k 1"})


@pytest.mark.parametrize(
    "type_", ["application/json; charset=utf-8", "application/problem+json", None, "APPLICATION/JSON"]
)
def test_json_is_taken_by_any_of_its_names(port: int, type_: str | None) -> None:
    headers = {"Content-Type": type_} if type_ else {}
    assert ask(port, "POST", "/api/v2/things", key=KEY, content=b'{"name":"a"}', headers=headers).status == 201


@pytest.mark.parametrize("type_", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "json"])
def test_other_types_are_refused(port: int, type_: str) -> None:
    answer = ask(port, "POST", "/api/v2/things", key=KEY, content=b'{"name":"a"}', headers={"Content-Type": type_})
    is_problem(answer, 415)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"name":"a","extra":1}', "extra"),
        (b'{"name":5}', "name"),
        (b'{"name":"a","count":"5"}', "count"),
        (b'{"name":"a","count":true}', "count"),
        (b'{"name":"a","count":1.5}', "count"),
        (b'{"name":"a","nested":{"x":1}}', "nested.x"),
        (b"{}", "name"),
        (b"[]", "body"),
        (b'{"name":"a","count":9223372036854775808}', "body"),
    ],
)
def test_wrong_fields_are_named_and_never_repeated(port: int, body: bytes, field: str) -> None:
    problem = is_problem(ask(port, "POST", "/api/v2/things", key=KEY, content=body), 422, "invalid_input")
    assert problem["errors"][0]["field"] == field
    assert set(problem["errors"][0]) == {"field", "message"}


def test_a_whole_number_may_be_written_with_a_point(port: int) -> None:
    assert ask(port, "POST", "/api/v2/things", key=KEY, content=b'{"name":"a","count":7.0}').status == 201


def test_a_refused_value_is_not_echoed(port: int) -> None:
    answer = ask(port, "POST", "/api/v2/things", key=KEY, json_body={"name": ["canary-value"], "sk_" + "z" * 43: 1})
    assert b"canary" not in answer.body
    assert b"zzzzzz" not in answer.body


def test_a_junk_body_is_400(port: int) -> None:
    for body in (b"", b"[" * 100_000, b'{"a":NaN}', b"\xff"):
        is_problem(ask(port, "POST", "/api/v2/things", key=KEY, content=body), 400, "invalid_json")


@pytest.mark.hazard(20, 44)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_413_on_the_wire(port: int, chunked: bool) -> None:
    head = f"POST /api/v2/things HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n".encode()
    if chunked:
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
        sent += b"".join([b"40000\r\n" + b"x" * 0x40000 + b"\r\n"] * 4)
    else:
        sent = head + b"Content-Length: 3000000\r\n\r\n"
    assert b" 413 " in raw(port, sent).partition(b"\r\n")[0]


@pytest.mark.hazard(20, 48)
def test_a_dripping_body_is_cut_by_a_deadline(port: int) -> None:
    head = f"POST /webhooks/replicate/{THING}/nonce HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head)
        connection.settimeout(0.05)
        got = b""
        while b"\r\n\r\n" not in got and time.monotonic() - began < 5:
            try:
                got += connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"x")
    assert b" 408 " in got.partition(b"\r\n")[0]
    assert b"connection: close" in got.lower()
    assert time.monotonic() - began < 3


@pytest.mark.hazard(43)
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=5&status=a&status=b&q=x", 200),
        ("limit=0", 422),
        ("limit=101", 422),
        ("limit=-1", 422),
        ("limit=x", 422),
        ("limit=", 422),
        ("limit=1e3", 422),
        ("limit=99999999999999999999", 422),
        ("limit=5&limit=6", 422),
        ("nonsense=1", 422),
        ("q=%00", 422),
        ("q=%ff", 200),
        ("q=" + "'%20OR%201=1--", 200),
    ],
)
def test_queries_are_checked(port: int, query: str, status: int) -> None:
    assert ask(port, "GET", f"/api/v2/things?{query}", key=KEY).status == status


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", " "])
def test_a_bad_idempotency_key_is_422(port: int, key: str) -> None:
    answer = ask(port, "POST", "/api/v2/things", key=KEY, json_body={"name": "a"}, headers={"Idempotency-Key": key})
    is_problem(answer, 422)


def test_nobody_without_a_key_makes_us_read_a_body(port: int) -> None:
    is_problem(ask(port, "POST", "/api/v2/things", content=b"junk"), 401)


def test_an_admin_operation_is_for_admins(port: int) -> None:
    assert ask(port, "DELETE", f"/api/v2/things/{THING}", key=ADMIN_KEY).status == 204


def test_head_answers_like_get_without_a_body(port: int) -> None:
    got, head = ask(port, "GET", "/healthz"), ask(port, "HEAD", "/healthz")
    assert head.status == 200
    assert head.body == b""
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.hazard(47)
def test_two_hosts_are_refused(port: int) -> None:
    got = raw(port, b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")
    assert b" 400 " in got.partition(b"\r\n")[0]


@pytest.mark.hazard(48)
def test_headers_that_never_end_are_cut(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
        try:
            for _ in range(1000):
                connection.sendall(b"x" * 4096)
        except (BrokenPipeError, ConnectionResetError):
            return
    raise AssertionError("4 MB of header were taken")


@pytest.mark.hazard(48)
def test_a_connection_that_drips_its_head_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.web.server.protocol.HEAD_WITHIN_S", 0.2)
    began = time.monotonic()
    assert raw(port, b"GET /healthz HTTP/1.1\r\nHo") == b""
    assert raw(port, b"") == b""
    assert time.monotonic() - began < 3


def test_the_log_line_has_no_query_and_no_nonce(port: int, logged: Callable[[int], str]) -> None:
    ask(port, "POST", f"/webhooks/replicate/{THING}/canary-nonce?token=canary-token", content=b"{}")
    ask(port, "GET", f"/api/v2/things/{THING}?sig=canary-sig", key=KEY)
    text = logged(2)
    assert "canary" not in text
    assert KEY not in text
    lines = [json.loads(line) for line in text.splitlines()]
    first, second = [line for line in lines if line["event"] == "request"]
    assert first["path"] == f"/webhooks/replicate/{THING}/***"
    assert second["key_id"] == "id-of-a"
    assert {"method", "status", "ms", "request_id"} <= set(second)


def test_a_path_cannot_forge_a_log_line(port: int, logged: Callable[[int], str]) -> None:
    ask(port, "GET", "/x%0d%0a%7b%22event%22:%22forged%22%7d%1b%5b31m")
    lines = logged(1).splitlines()
    assert all(json.loads(line)["event"] != "forged" for line in lines)
    assert "\x1b" not in "".join(lines)


def test_requests_are_counted_by_route_template(port: int) -> None:
    ask(port, "GET", f"/api/v2/things/{THING}", key=KEY)
    ask(port, "GET", "/some/random/path")
    text = ask(port, "GET", "/metrics").body.decode()
    assert 'reelhook_http_requests_total{method="GET",route="/api/v2/things/{id}",status="200"}' in text
    assert 'route="unmatched"' in text
    assert THING not in text
    assert "random" not in text


def test_a_webhook_path_is_shown_without_its_nonce() -> None:
    assert middleware.shown_path("/webhooks/replicate/id/nonce/more") == "/webhooks/replicate/id/***"


def test_readiness_says_what_is_missing() -> None:
    async def half() -> dict[str, Any]:
        return {"database": {"ok": True}, "worker": {"ok": False, "why": "none has been seen for 30 s"}}

    with serve(make_app(make_site(make_rows(), readiness=half), [])) as port:
        answer = ask(port, "GET", "/readyz")
    assert answer.status == 503
    assert answer.json()["checks"]["worker"] == {"ok": False, "why": "none has been seen for 30 s"}


DEV_REFUSED = [
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-Host": "x"},
    {"X-Forwarded-Proto": "https"},
    {"Forwarded": "for=127.0.0.1"},
    {"X-Real-IP": "127.0.0.1"},
    {"CF-Connecting-IP": "1.2.3.4"},
    {"Via": "1.1 x"},
    {"Host": "x.ngrok.app"},
    {"Host": "127.0.0.1.evil.com"},
    {"Host": "localhost/?"},
    {"Host": "h/?@localhost"},
    {"Host": "localhost@evil.com"},
    {"Host": ""},
    {"Origin": "https://evil.com"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.com"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.fixture(scope="module")
def dev_port() -> Iterator[int]:
    with serve(make_app(make_site(make_rows(), dev_caller=DEV), OPERATIONS)) as found:
        yield found


@pytest.mark.parametrize("headers", DEV_REFUSED)
@pytest.mark.hazard(24)
def test_dev_mode_refuses_what_is_not_of_this_machine(dev_port: int, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/api/v2/things"), ("GET", f"/api/v2/things/{THING}"), ("GET", "/healthz")):
        is_problem(ask(dev_port, method, path, json_body={"name": "a"}, headers=headers), 403, "dev_mode_local_only")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_dev_mode_needs_no_key_on_this_machine(dev_port: int, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert ask(dev_port, "POST", "/api/v2/things", json_body={"name": "a"}, headers=headers).status == 201


PAGES_ELSEWHERE = [
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "http://localhost"},
    {"Origin": "http://127.0.0.1:8000"},
    {"Origin": "http://evil.localhost:8000"},
    {"Origin": "http://localhost:8000/"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-site"},
]


@pytest.mark.hazard(24)
@pytest.mark.parametrize("headers", PAGES_ELSEWHERE, ids=repr)
@pytest.mark.parametrize("type_", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_in_dev_mode_a_page_of_another_port_changes_nothing(dev_port: int, headers: dict[str, str], type_: str) -> None:
    sent = {"Host": "localhost:8000", **headers, **({"Content-Type": type_} if type_ else {})}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = ask(dev_port, method, "/api/v2/things", content=b'{"name": "a"}', headers=sent)
        assert answer.status == 403 and answer.json()["code"] in ("dev_mode_local_only", "foreign_origin")
    changing_get = ask(dev_port, "GET", "/api/v2/once", headers=sent)
    assert changing_get.status == 403 and changing_get.json()["code"] in ("dev_mode_local_only", "foreign_origin")


@pytest.mark.hazard(24)
@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost:8000"}, {"Sec-Fetch-Site": "none"}], ids=repr)
def test_in_dev_mode_programs_and_the_services_own_pages_may_change_things(
    dev_port: int, headers: dict[str, str]
) -> None:
    sent = {"Host": "localhost:8000", **headers}
    assert ask(dev_port, "POST", "/api/v2/things", json_body={"name": "a"}, headers=sent).status == 201
    assert ask(dev_port, "GET", "/api/v2/once", headers=sent).status == 200


def test_what_is_shown_once_is_shown_to_no_page_of_another_port() -> None:
    (secret,) = [made for made in ROUTES if (made.method, made.path) == ("GET", "/api/v2/webhook-secret")]
    assert "write" in secret.limits and not secret.head


@pytest.mark.hazard(24)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_no_page_elsewhere_is_shown_what_is_answered(dev_port: int, port: int, method: str) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for where, key in ((dev_port, None), (port, KEY)):
        for origin in ("http://localhost:3000", "http://localhost:8000"):
            sent = {"Host": "localhost:8000", "Origin": origin, **(asks if method == "OPTIONS" else {})}
            answer = ask(where, method, f"/api/v2/things/{THING}", key=key, headers=sent)
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("headers", DEV_REFUSED[:4])
def test_with_keys_a_proxy_is_welcome(port: int, headers: dict[str, str]) -> None:
    assert ask(port, "GET", f"/api/v2/things/{THING}", key=KEY, headers=headers).status == 200
