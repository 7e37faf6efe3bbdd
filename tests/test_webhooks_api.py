"""The routes of webhook endpoints and deliveries: what they take, what they show, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from api_service import Service, Tenant, running
from receivers import deliveries, endpoint, happen, receiving, status, tell

from backend.core.events import EVENT_TYPES
from backend.manage.webhook_endpoints import MOST_ENDPOINTS
from backend.web.api.webhook_endpoints import EventType

ENDPOINTS, LOG = "/api/v2/webhook-endpoints", "/api/v2/webhook-deliveries"
NOBODY = "01a1fd7d-ceb2-7ec8-a1f9-7d72a6494958"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("webhooks"), webhook_allow_cidrs="127.0.0.0/8") as found:
        yield found


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("strict")) as found:
        yield found


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def test_every_type_of_event_can_be_asked_for() -> None:
    assert get_args(EventType) == EVENT_TYPES


def test_a_secret_is_shown_once_and_not_when_the_request_is_repeated(service: Service, who: Tenant) -> None:
    body, once = {"url": "https://hooks.example.com/x"}, {"Idempotency-Key": "one"}
    made = service.ask("POST", ENDPOINTS, body, key=who.key, headers=once)
    again = service.ask("POST", ENDPOINTS, body, key=who.key, headers=once)
    assert (made.status, again.status) == (201, 201)
    assert made.json()["secret"].startswith("whsec_") and again.json() == made.json() | {"secret": None}
    assert made.headers["location"] == f"{ENDPOINTS}/{made.json()['id']}"
    rotated = service.ask(
        "POST", f"{made.headers['location']}/rotate", {}, key=who.key, headers=once | {"Idempotency-Key": "2"}
    )
    repeated = service.ask(
        "POST", f"{made.headers['location']}/rotate", {}, key=who.key, headers=once | {"Idempotency-Key": "2"}
    )
    assert rotated.json()["secret"] not in (None, made.json()["secret"]) and repeated.json()["secret"] is None
    for path in (ENDPOINTS, made.headers["location"]):
        assert b"whsec_" not in service.ask("GET", path, key=who.key).body
    kept = service.run(service.ctx.db.read(lambda tx: tx.all("SELECT body FROM idempotency_keys")))
    assert not any("whsec_" in (row["body"] or "") for row in kept)


def test_an_endpoint_is_listed_changed_disabled_and_removed(service: Service, who: Tenant) -> None:
    first = endpoint(service, who, "https://hooks.example.com/1")
    second = endpoint(service, who, "https://hooks.example.com/2", "generation.failed", "generation.failed")
    page = service.ask("GET", f"{ENDPOINTS}?limit=1", key=who.key).json()
    rest = service.ask("GET", f"{ENDPOINTS}?limit=1&cursor={page['next_cursor']}", key=who.key).json()
    assert [page["items"][0]["id"], rest["items"][0]["id"]] == [second["id"], first["id"]]
    assert (page["items"][0]["events"], rest["next_cursor"]) == (["generation.failed"], None)
    path = f"{ENDPOINTS}/{first['id']}"
    changed = service.ask("PATCH", path, {"events": ["generation.completed"], "enabled": False}, key=who.key).json()
    assert (changed["enabled"], changed["disabled_reason"]) == (False, "It was disabled by hand.")
    moved = service.ask("PATCH", path, {"url": "https://other.example.com/"}, key=who.key).json()
    assert (moved["url"], moved["events"]) == ("https://other.example.com/", ["generation.completed"])
    for action in ("test",):
        refused = service.ask("POST", f"{path}/{action}", {}, key=who.key)
        assert (refused.status, refused.json()["code"]) == (409, "endpoint_disabled")
    enabled = service.ask("PATCH", path, {"enabled": True, "events": []}, key=who.key).json()
    assert (enabled["enabled"], enabled["disabled_at"], enabled["events"]) == (True, None, [])
    assert service.ask("DELETE", path, key=who.key).status == 204
    for method, rest_of in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/test")):
        answer = service.ask(method, path + rest_of, {} if method in ("POST", "PATCH") else None, key=who.key)
        assert (answer.status, answer.json()["code"]) == (404, "webhook_endpoint_not_found")


@pytest.mark.hazard(51)
@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"url": "https://hooks.example.com/", "events": ["generation.exploded"]},
        {"url": "https://hooks.example.com/", "events": "generation.failed"},
        {"url": "https://hooks.example.com/", "events": ["generation.failed"] * 21},
        {"url": "https://hooks.example.com/", "events": [None]},
        {"url": "https://hooks.example.com/", "secret": "whsec_AA"},
        {"url": "https://hooks.example.com/", "enabled": True},
        {"url": "ftp://hooks.example.com/"},
        {"url": "https://user:password@hooks.example.com/"},
        {"url": "https://hooks.example.com:8443/"},
        {"url": "http://127.0.0.1/"},
        {"url": "http://[::ffff:10.0.0.1]/"},
        {"url": "http://169.254.169.254/latest"},
        {"url": "http://localhost/"},
        {"url": "http://xn--a/"},
        {"url": "https://hooks.example.com/\r\nX: y"},
        {"url": "https://hooks.example.com/" + "x" * 2048},
        {"url": 5},
        {"url": None},
    ],
)
def test_an_endpoint_that_could_never_be_told_is_refused(strict: Service, wrong: dict[str, Any]) -> None:
    who = strict.tenant()
    answer = strict.ask("POST", ENDPOINTS, wrong, key=who.key)
    assert (answer.status, answer.json()["code"]) == (422, "invalid_input")
    assert strict.ask("GET", ENDPOINTS, key=who.key).json()["items"] == []
    good = strict.ask("POST", ENDPOINTS, {"url": "https://hooks.example.com/"}, key=who.key).json()
    if wrong.get("url") and "enabled" not in wrong:
        assert strict.ask("PATCH", f"{ENDPOINTS}/{good['id']}", wrong, key=who.key).status == 422
    assert strict.ask("GET", f"{ENDPOINTS}/{good['id']}", key=who.key).json()["url"] == "https://hooks.example.com/"


@pytest.mark.hazard(51)
def test_metadata_services_are_no_receivers_whatever_the_operator_allows(tmp_path: Path) -> None:
    with running(tmp_path, webhook_allow_cidrs="0.0.0.0/0,::/0") as service:
        who = service.tenant()
        for host in ("169.254.169.254", "[fd00:ec2::254]", "100.100.100.200"):
            assert service.ask("POST", ENDPOINTS, {"url": f"http://{host}/"}, key=who.key).status == 422
        endpoint(service, who, "http://10.0.0.1:8080/")


def test_a_client_has_fifty_endpoints_at_most(service: Service, who: Tenant) -> None:
    for number in range(MOST_ENDPOINTS):
        last = endpoint(service, who, f"https://hooks.example.com/{number}")
    body = {"url": "https://hooks.example.com/more"}
    refused = service.ask("POST", ENDPOINTS, body, key=who.key)
    assert (refused.status, refused.json()["code"]) == (409, "too_many_endpoints")
    service.ask("DELETE", f"{ENDPOINTS}/{last['id']}", key=who.key)
    assert service.ask("POST", ENDPOINTS, body, key=who.key).status == 201


@pytest.mark.hazard(32)
def test_another_clients_endpoints_deliveries_and_secret_do_not_exist(service: Service, who: Tenant) -> None:
    made = endpoint(service, who, "http://127.0.0.1:9/")
    happen(service, who)
    (sent,) = deliveries(service, who)
    other = service.tenant("other")
    for method, path in (
        ("GET", f"{ENDPOINTS}/{made['id']}"),
        ("PATCH", f"{ENDPOINTS}/{made['id']}"),
        ("DELETE", f"{ENDPOINTS}/{made['id']}"),
        ("POST", f"{ENDPOINTS}/{made['id']}/rotate"),
        ("POST", f"{ENDPOINTS}/{made['id']}/test"),
        ("GET", f"{LOG}/{sent['id']}"),
        ("POST", f"{LOG}/{sent['id']}/replay"),
    ):
        body = {} if method in ("POST", "PATCH") else None
        theirs = service.ask(method, path, body, key=other.key)
        nobodys = service.ask(method, path.replace(made["id"], NOBODY).replace(sent["id"], NOBODY), body, key=other.key)
        assert (theirs.status, theirs.json()["code"]) == (404, nobodys.json()["code"]), path
    assert deliveries(service, other) == deliveries(service, other, f"endpoint_id={made['id']}") == []
    assert service.ask("GET", ENDPOINTS, key=other.key).json()["items"] == []
    secrets = [service.ask("GET", "/api/v2/webhook-secret", key=one.key).json() for one in (who, other)]
    assert [one["client_id"] for one in secrets] == [who.client_id, other.client_id]
    assert secrets[0]["secret"] != secrets[1]["secret"]
    answer = service.ask("GET", f"/api/v2/webhook-secret?client_id={who.client_id}", key=other.key)
    assert (answer.status, answer.json()["code"]) == (404, "client_not_found")
    body = {"url": "https://hooks.example.com/", "client_id": who.client_id}
    assert service.ask("POST", ENDPOINTS, body, key=other.key).status == 404


def test_an_admin_says_whose_endpoint_or_secret_it_is(service: Service, who: Tenant) -> None:
    for method, path, body in (
        ("POST", ENDPOINTS, {"url": "https://hooks.example.com/"}),
        ("GET", "/api/v2/webhook-secret", None),
        ("POST", "/api/v2/webhook-secret/rotate", None),
    ):
        answer = service.ask(method, path, body)
        assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "client_id")
    made = service.ask("POST", ENDPOINTS, {"url": "https://hooks.example.com/", "client_id": who.client_id})
    assert made.json()["client_id"] == who.client_id
    first, again = (service.ask("GET", f"/api/v2/webhook-secret?client_id={who.client_id}").json() for _ in range(2))
    assert first["secret"].startswith("whsec_") and again["secret"] is None
    assert again == service.ask("GET", "/api/v2/webhook-secret", key=who.key).json()


def test_a_test_reaches_the_endpoint_whatever_it_listens_for(service: Service, who: Tenant) -> None:
    with receiving() as receiver:
        made = endpoint(service, who, receiver.url, "generation.failed")
        asked = service.ask("POST", f"{ENDPOINTS}/{made['id']}/test", {}, key=who.key)
        assert (asked.status, asked.json()["type"], asked.json()["generation_id"]) == (202, "webhook.test", None)
        tell(service)
        shown = service.ask("GET", asked.headers["location"], key=who.key).json()
    assert (receiver.got[0].type, receiver.ids) == ("webhook.test", [shown["event_id"]])
    assert (shown["status"], shown["attempts"][0]["status_code"]) == ("delivered", 200)


def test_a_replay_is_a_delivery_of_its_own_with_the_same_event(service: Service, who: Tenant) -> None:
    with receiving(answers=[status(500)]) as receiver:
        made = endpoint(service, who, receiver.url)
        happen(service, who)
        tell(service)
        (first,) = deliveries(service, who)
        once = {"Idempotency-Key": "replay"}
        replays = [service.ask("POST", f"{LOG}/{first['id']}/replay", {}, key=who.key, headers=once) for _ in "ab"]
        assert [one.status for one in replays] == [202, 202]
        tell(service)
        assert receiver.ids == [first["event_id"]] * 2 and receiver.got[0].body == receiver.got[1].body
        second, old = deliveries(service, who)
        assert (second["replay_of"], second["status"], old["status"]) == (first["id"], "delivered", "pending")
        service.ask("PATCH", f"{ENDPOINTS}/{made['id']}", {"enabled": False}, key=who.key)
        refused = service.ask("POST", f"{LOG}/{first['id']}/replay", {}, key=who.key)
        assert (refused.status, refused.json()["code"]) == (409, "endpoint_disabled")


def test_a_changed_address_is_where_what_is_pending_goes(service: Service, who: Tenant) -> None:
    with receiving() as receiver:
        made = endpoint(service, who, "http://127.0.0.1:9/")
        happen(service, who)
        service.ask("PATCH", f"{ENDPOINTS}/{made['id']}", {"url": receiver.url}, key=who.key)
        tell(service)
        (sent,) = deliveries(service, who)
    assert (sent["status"], sent["url"]) == ("delivered", receiver.url)


def test_the_log_is_narrowed_and_paged_without_a_gap(service: Service, who: Tenant) -> None:
    with receiving(answers=[status(500)]) as receiver:
        made = endpoint(service, who, receiver.url)
        first = happen(service, who)
        tell(service)
        happen(service, who, webhook_url=receiver.url)
        service.failed(service.generate(who)["id"])
        tell(service)
        every = deliveries(service, who)
    assert len(every) == 4
    narrowed = {
        f"endpoint_id={made['id']}": 3,
        f"generation_id={first}": 1,
        "status=pending": 1,
        "status=delivered&type=generation.canceled": 2,
        "type=generation.failed": 1,
        f"endpoint_id={made['id']}&generation_id={first}&status=failed": 0,
        f"endpoint_id={NOBODY}": 0,
    }
    for query, expected in narrowed.items():
        assert len(deliveries(service, who, query)) == expected, query
    seen, cursor = [], ""
    while True:
        page = service.ask("GET", f"{LOG}?limit=1{cursor}", key=who.key).json()
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == every
    for wrong in ("status=lost", "cursor=x", "limit=101", "answer=1"):
        assert service.ask("GET", f"{LOG}?{wrong}", key=who.key).status == 422


def test_what_waits_and_who_is_disabled_is_counted(tmp_path: Path) -> None:
    with running(tmp_path, webhook_allow_cidrs="127.0.0.0/8") as service:
        who = service.tenant()
        made = endpoint(service, who, "http://127.0.0.1:9/")
        happen(service, who)
        assert b"reelhook_webhooks_pending 1.0" in service.ask("GET", "/metrics").body
        service.ask("PATCH", f"{ENDPOINTS}/{made['id']}", {"enabled": False}, key=who.key)
        tell(service)
        body = service.ask("GET", "/metrics").body
        assert b"reelhook_webhooks_pending 0.0" in body and b"reelhook_webhook_endpoints_disabled 1.0" in body
        assert deliveries(service, who)[0]["status"] == "failed"


def test_tests_of_one_key_are_counted_for_they_call_anybodys_address(service: Service, who: Tenant) -> None:
    path = f"{ENDPOINTS}/{endpoint(service, who, 'https://hooks.example.com/')['id']}/test"
    statuses = [service.ask("POST", path, {}, key=who.key).status for _ in range(101)]
    assert statuses == [202] * 100 + [429]
    again = service.ask("POST", path, {}, key=who.key)
    assert again.json()["code"] == "rate_limited" and int(again.headers["retry-after"]) > 0
    assert service.generate(who)["status"] == "pending", "what makes images is counted by itself"


def test_however_many_addresses_a_client_names_they_share_a_bounded_number_of_queues(
    service: Service, who: Tenant
) -> None:
    for number in range(600):
        happen(service, who, webhook_url=f"https://host-{number}.example.com/hook")
    rows = service.run(
        service.ctx.db.read(
            lambda tx: tx.all("SELECT DISTINCT target FROM webhook_deliveries WHERE client_id = :id", id=who.client_id)
        )
    )
    assert 100 < len(rows) <= 256
