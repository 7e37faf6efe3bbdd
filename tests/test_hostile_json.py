"""Junk for every JSON route and every query, as the service's own description lists them: a 4xx that says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from api_service import Service, Tenant, png, running

pytestmark = pytest.mark.usefixtures("nobody_waits")
Route = tuple[str, str, dict[str, Any]]  # method, path, its description
STRANGER = "01890000-0000-7000-8000-000000000000"

# Not JSON, or JSON that two readers understand differently: 400.
NOT_JSON = {
    "nothing": b"",
    "white space": b" \n",
    "half": b'{"name": "a"',
    "two": b"{}{}",
    "not UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"name": "a"}',
    "raw surrogate": b'{"name": "\xed\xa0\x80"}',
    "raw NUL": b'{"name": "\x00"}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": [-Infinity]}',
    "1e999": b'{"name": 1e999}',
    "same key twice": b'{"name": "a", "name": "b"}',
    "deep list": b"[" * 100_000,
    "deep list, closed": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"name":' * 100_000 + b"1" + b"}" * 100_000,
    "33 levels": b'{"name":' * 33 + b"1" + b"}" * 33,
}
# JSON with values that no field here takes and no database could keep: 422.
NOT_VALUES = {
    "list": b"[]",
    "null": b"null",
    "text": b'"name"',
    "2^63": b'{"name": 9223372036854775808}',
    "-2^63-1": b'{"name": -9223372036854775809}',
    "5,000 digits": b'{"name": ' + b"9" * 5000 + b"}",
    "NUL": b'{"name": "\\u0000"}',
    "NUL in a name": b'{"\\u0000": 1}',
    "half a pair": b'{"name": "\\ud800"}',
    "half a pair in a name": b'{"\\udfff": 1}',
    "unknown member": b'{"name": "a", "surely_unknown": 1}',
    "very many members": json.dumps({f"m{number}": 1 for number in range(10_000)}).encode(),
}
SIZES = {"2 MB": json.dumps({"name": "x" * 2_000_000}).encode()}
SIZES_WITH_PICTURES = {"13 MB": json.dumps({"name": "x" * 13_000_000}).encode()}  # where one is taken as text


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("json")) as found:
        yield found


@pytest.fixture(scope="module")
def routes(service: Service) -> list[Route]:
    paths = service.ask("GET", "/openapi.json", key="").json()["paths"]
    return [
        (method.upper(), path, described)
        for path, item in paths.items()
        for method, described in item.items()
        if method in ("get", "post", "put", "patch", "delete")
    ]


@pytest.fixture(scope="module")
def who(service: Service) -> Tenant:
    return service.tenant()


def takes_json(route: Route) -> bool:
    return "application/json" in route[2].get("requestBody", {}).get("content", {})


def path_for(route: Route, ids: dict[str, str]) -> str:
    """The path with ids of things that are there, as far as they are known, so that the body is what is wrong."""
    path = route[1]
    for parameter in route[2].get("parameters", []):
        if parameter["in"] == "path":
            noun = path.partition("/{")[0].rpartition("/")[2]
            path = path.replace("{" + parameter["name"] + "}", ids.get(noun, STRANGER))
    return path


@pytest.fixture(scope="module")
def ids(service: Service, who: Tenant) -> dict[str, str]:
    made = service.generate(who)["id"]
    service.completed(made, png())
    return {"clients": who.client_id, "campaigns": who.campaign_id, "generations": made, "images": made}


def status_at(path: str, status: int) -> int:
    return 400 if path.startswith("/v1/") and status == 422 else status


def is_problem(answer: Any, *statuses: int, path: str = "") -> None:
    """A refusal with one of these statuses; below /v1 in OpenAI's shape, whose status for 422 is 400."""
    assert answer.status in [status_at(path, status) for status in statuses], (answer.status, answer.body[:300])
    if path.startswith("/v1/"):
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.json()) == {"error"} and set(answer.json()["error"]) == {"message", "type", "param", "code"}
        return
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status and problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.hazard(42, 43, 44)
def test_no_json_route_takes_junk_or_breaks_on_it(
    service: Service, routes: list[Route], ids: dict[str, str], who: Tenant
) -> None:
    json_routes = [route for route in routes if takes_json(route)]
    assert len(json_routes) >= 15
    for route in json_routes:
        sizes = SIZES_WITH_PICTURES if route[1] == "/v1/videos" else SIZES
        for table, status in ((NOT_JSON, 400), (NOT_VALUES, 422), (sizes, 413)):
            for name, body in table.items():
                if not body and not route[2]["requestBody"]["required"]:
                    continue
                headers = {"Content-Type": "application/json"}
                answer = service.ask(route[0], path_for(route, ids), content=body, headers=headers)
                told = status_at(route[1], status)
                assert answer.status == told, (route[:2], name, answer.status, answer.body[:300])
                is_problem(answer, status, path=route[1])
    assert service.ask("GET", "/healthz").status == 200


@pytest.mark.hazard(42)
def test_a_route_without_a_body_is_not_troubled_by_one(service: Service, routes: list[Route]) -> None:
    for route in routes:
        if takes_json(route) or route[2].get("requestBody") or route[1] == "/readyz":
            continue
        for name in ("half", "deep list", "not UTF-8", "NUL"):
            body = (NOT_JSON | NOT_VALUES)[name]
            answer = service.ask(route[0], path_for(route, {}), content=body)
            assert answer.status < 500, (route[:2], name, answer.body[:300])


WRONG = ["", "-1", "0", "1e999", "nan", "9" * 30, "x" * 3000, "%00", "%ff", "\U0001f98a", "' OR 1=1 --", "null"]


@pytest.mark.hazard(43, 45)
def test_no_query_breaks_a_route_and_a_wrong_limit_or_cursor_is_422(
    service: Service, routes: list[Route], ids: dict[str, str]
) -> None:
    tried = 0
    for route in (route for route in routes if route[0] == "GET"):
        path = path_for(route, ids)
        names = [one["name"] for one in route[2].get("parameters", []) if one["in"] == "query"]
        for name in names:
            for wrong in WRONG:
                value = wrong if "%" in wrong else quote(wrong)
                answer = service.ask("GET", f"{path}?{name}={value}")
                assert answer.status < 500, (route[:2], name, wrong, answer.body[:300])
                if name in ("limit", "cursor") and answer.status != 404:
                    is_problem(answer, 422, path=path)
                tried += 1
        if {"limit", "cursor"} & set(names):
            for odd in (
                "offset=1000000000000000000",
                "sort=id;DROP TABLE clients",
                "limit=1&limit=2",
                "status=a&status=b",
            ):
                is_problem(service.ask("GET", f"{path}?{quote(odd, safe='=&')}"), 422, 404, path=path)
    assert tried > 100


@pytest.mark.hazard(44)
def test_a_text_longer_than_its_field_is_422(service: Service, who: Tenant) -> None:
    long = {
        "prompt": "x" * 10_001,
        "metadata": {f"m{number}": "x" for number in range(51)},
        "model": "x" * 201,
        "webhook_url": "https://example.com/" + "x" * 3000,
        "campaign_id": "x" * 65,
    }
    for name, value in (*long.items(), ("metadata", {"m": "x" * 1001}), ("metadata", {"x" * 101: "m"})):
        wanted = {"campaign_id": who.campaign_id, "prompt": "a fox"} | {name: value}
        answer = service.ask("POST", "/api/v2/generate/image", wanted, key=who.key)
        is_problem(answer, 422)
        assert answer.json()["errors"][0]["field"].startswith(name)
        assert "xxxxx" not in answer.body.decode()


INJECTIONS = [
    "' OR '1'='1",
    "'; DROP TABLE generations; --",
    '" OR ""="',
    "%' OR 1=1 --",
    "x' UNION SELECT hash FROM api_keys --",
    "\\",
    "%",
    "_",
    ":id",
    "$1",
    "?",
    "{0}",
    "%s",
]


@pytest.mark.hazard(45)
def test_what_reads_like_sql_is_only_text(service: Service) -> None:
    who, other = service.tenant(), service.tenant()
    secret = service.generate(other, prompt="a secret fox")["id"]
    made = {text: service.generate(who, prompt=text, metadata={text: text})["id"] for text in INJECTIONS}
    for text, id in made.items():
        shown = service.ask("GET", f"/api/v2/generations/{id}", key=who.key).json()
        assert (shown["prompt"], shown["metadata"]) == (text, {text: text})
        for name in ("q", "campaign_id", "model", "provider"):
            answer = service.ask("GET", f"/api/v2/generations?{name}={quote(text, safe='')}&limit=100", key=who.key)
            found = {item["id"] for item in answer.json()["items"]} if answer.status == 200 else set()
            expected = {made[one] for one in INJECTIONS if text in one} if name == "q" else set()
            assert found == expected, (name, text)
        for noun in ("generations", "campaigns", "assets", "images"):
            assert service.ask("GET", f"/api/v2/{noun}/{quote(text, safe='')}", key=who.key).status == 404
    assert service.ask("GET", f"/api/v2/generations/{secret}", key=other.key).status == 200
