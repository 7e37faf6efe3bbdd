"""The OpenAI face at its edges: what repeats what, whose campaign it is, and what is said of what goes wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, Tenant, png, running
from emulating import emulating
from webserving import Answer, ask, until
from workshop import working

from backend.core.generation import Failure
from backend.core.ids import new_id
from backend.db import campaigns, generations, operations
from backend.db import idempotency_keys as kept_answers
from backend.db.migrate import migrate
from backend.db.sqlite import SqliteDb
from backend.manage import idempotency
from backend.web.calls.operation import OPERATIONS
from backend.web.openai import images, repeats, waiting

FIRST, AGAIN = {"x-stainless-retry-count": "0"}, {"x-stainless-retry-count": "1"}
REFERENCE = "data:image/png;base64," + base64.b64encode(png()).decode()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("openai")) as found:
        yield found


@pytest.fixture
def who(service: Service) -> Tenant:
    """A new client, whose key has its campaign."""
    made = service.tenant()
    key, key_id = service.key(made.client_id, campaign_id=made.campaign_id)
    return Tenant(made.client_id, made.campaign_id, key, key_id)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are not waited for: no worker is there."""
    monkeypatch.setattr(waiting, "WAIT_S", 0.0)


def make(service: Service, who: Tenant, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    return service.ask("POST", "/v1/videos", {"prompt": "a boat", **more}, key=who.key, headers=headers)


def made(service: Service, who: Tenant, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    answer = make(service, who, headers, **more)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def row(service: Service, id: str) -> dict[str, Any]:
    found: dict[str, Any] = service.ask("GET", f"/api/v2/generations/{id}").json()
    return found


def videos(service: Service, who: Tenant) -> list[str]:
    shown = service.ask("GET", "/v1/videos?limit=100", key=who.key).json()
    return [one["id"] for one in shown["data"]]


def form(fields: dict[str, str], file: bytes | None = None, boundary: str = "b") -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    if file is not None:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="input_reference"; filename="a.png"\r\n\r\n'
        parts.append(head.encode() + file + b"\r\n")
    content = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return content, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def send(service: Service, who: Tenant, content: tuple[bytes, dict[str, str]], **headers: str) -> Answer:
    body, kind = content
    return service.ask("POST", "/v1/videos", key=who.key, content=body, headers=kind | headers)


# What repeats what.


def test_two_equal_requests_on_purpose_are_two(service: Service, who: Tenant) -> None:
    assert made(service, who, FIRST)["id"] != made(service, who, FIRST)["id"]


def test_what_the_sdk_sends_again_joins_the_newest_equal_one(service: Service, who: Tenant) -> None:
    made(service, who, FIRST)
    newest = made(service, who, FIRST)["id"]
    joined = make(service, who, AGAIN)
    assert (joined.json()["id"], joined.headers["idempotent-replayed"]) == (newest, "true")
    assert made(service, who, {"x-stainless-retry-count": "2"})["id"] == newest
    assert len(videos(service, who)) == 2


@pytest.mark.parametrize("more", [{"prompt": "another boat"}, {"seconds": "10"}, {"metadata": {"a": "b"}}])
def test_another_request_sent_again_is_its_own(service: Service, who: Tenant, more: dict[str, Any]) -> None:
    assert made(service, who, FIRST)["id"] != made(service, who, AGAIN, **more)["id"]


def test_another_key_of_the_client_does_not_join(service: Service, who: Tenant) -> None:
    key, key_id = service.key(who.client_id, campaign_id=who.campaign_id)
    other = Tenant(who.client_id, who.campaign_id, key, key_id)
    assert made(service, who, FIRST)["id"] != made(service, other, AGAIN)["id"]


def test_a_sender_that_does_not_count_joins_for_a_minute(service: Service, who: Tenant) -> None:
    first = made(service, who)["id"]
    assert made(service, who)["id"] == first
    age(service, repeats.BARE_MS)
    assert made(service, who)["id"] != first


def test_what_the_sdk_sends_again_much_later_is_new(service: Service, who: Tenant) -> None:
    first = made(service, who, FIRST)["id"]
    age(service, repeats.RETRY_MS - 30_000)
    assert made(service, who, AGAIN)["id"] == first
    age(service, 60_000)
    assert made(service, who, AGAIN)["id"] != first


def age(service: Service, by_ms: int) -> None:
    """Let all kept answers be older by that much."""
    sql = "UPDATE idempotency_keys SET created_at = created_at - :by"
    service.run(service.ctx.db.write(lambda tx: tx.run(sql, by=by_ms)))


def test_an_idempotency_key_decides_before_anything_else(service: Service, who: Tenant) -> None:
    key = {"Idempotency-Key": new_id(0)}
    first = made(service, who, key | FIRST)["id"]
    assert made(service, who, key | FIRST)["id"] == first
    reused = make(service, who, key, prompt="another boat")
    assert (reused.status, reused.json()["error"]["code"]) == (400, "idempotency_key_reused")


def test_nobody_can_name_what_is_kept_without_a_key(service: Service, who: Tenant) -> None:
    made(service, who, FIRST)
    sql = "SELECT key FROM idempotency_keys WHERE scope = :scope"
    scope = f"client:{who.client_id}"
    [kept] = [one["key"] for one in service.run(service.ctx.db.read(lambda tx: tx.all(sql, scope=scope)))]
    named = make(service, who, {"Idempotency-Key": kept})
    assert named.status == 200 and "idempotent-replayed" not in named.headers


def test_a_repeat_that_overtook_its_first_one_is_one_with_it(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is held after it arrived and before it is kept, as a slow upload would be."""
    held, go_on = threading.Event(), threading.Event()
    look = idempotency.look

    async def slow(ctx: Any, name: Any) -> Any:
        kept = await look(ctx, name)
        if not held.is_set():
            held.set()
            await asyncio.to_thread(go_on.wait, 10)
        return kept

    monkeypatch.setattr(idempotency, "look", slow)
    answers: list[Answer] = []
    first = threading.Thread(target=lambda: answers.append(make(service, who, FIRST)))
    first.start()
    until(held.is_set)
    again = made(service, who, AGAIN)["id"]
    go_on.set()
    first.join(10)
    assert answers[0].json()["id"] == again
    assert videos(service, who) == [again]


def test_fields_and_files_are_compared_and_not_boundaries(service: Service, who: Tenant) -> None:
    fields = {"prompt": "it moves", "seconds": "5"}
    first = send(service, who, form(fields, png()), **FIRST).json()["id"]
    assert send(service, who, form(fields, png(), "another"), **AGAIN).json()["id"] == first
    assert send(service, who, form(fields, png(colour="#ff0000")), **AGAIN).json()["id"] != first
    assert len(service.ask("GET", "/api/v2/assets", key=who.key).json()["items"]) == 2


def test_a_refused_request_is_not_remembered_and_leaves_no_file(service: Service, who: Tenant) -> None:
    before = files(service)
    assert make(service, who, AGAIN, input_reference={"image_url": REFERENCE}, provider="nobody").status == 400
    assert make(service, who, AGAIN, input_reference={"image_url": REFERENCE[:60]}).status == 400
    sound = "data:text/plain;base64," + base64.b64encode(b"not a picture").decode()
    assert make(service, who, AGAIN, input_reference={"image_url": sound}).json()["error"]["code"] == "invalid_media"
    assert files(service) == before and videos(service, who) == []


def test_what_no_budget_is_left_for_is_402_and_its_picture_goes_again(service: Service, who: Tenant) -> None:
    path = f"/api/v2/campaigns/{who.campaign_id}"
    assert service.ask("PATCH", path, {"budget_usd": 0}, key=who.key).status == 200
    before = files(service)
    answer = make(service, who, FIRST, input_reference={"image_url": REFERENCE})
    assert (answer.status, answer.json()["error"]["type"]) == (402, "insufficient_quota")
    assert service.ask("GET", "/api/v2/assets", key=who.key).json()["items"] == []
    rubbish = service.run(service.ctx.db.read(lambda tx: operations.rubbish(tx, 100)))
    assert files(service) - before <= set(rubbish)


def files(service: Service) -> set[str]:
    folder = Path(service.ctx.settings.storage_url.removeprefix("file:"))
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("short")
def test_images_that_take_too_long_are_joined_by_the_same_request(service: Service, who: Tenant) -> None:
    def generate(headers: dict[str, str]) -> Answer:
        return service.ask("POST", "/v1/images/generations", {"prompt": "a fox"}, key=who.key, headers=headers)

    first = generate(FIRST)
    error = first.json()["error"]
    assert (first.status, error["code"], first.headers["retry-after"]) == (503, "still_running", "1")
    assert "x-should-retry" not in first.headers
    age(service, repeats.BARE_MS * 2)
    assert generate(AGAIN).status == 503
    assert generate({}).status == 503  # told to come again a moment ago: its minute began anew
    [only] = service.ask("GET", "/api/v2/generations", key=who.key).json()["items"]
    assert only["id"] in error["message"]
    service.completed(only["id"], content := png())
    answer = generate(AGAIN)
    assert base64.b64decode(answer.json()["data"][0]["b64_json"]) == content
    assert answer.headers["idempotent-replayed"] == "true"


def test_nobody_waits_for_a_sender_that_left(service: Service, who: Tenant) -> None:
    with left_alone(service, who, {"prompt": "left alone"}):
        until(lambda: waiters(service) == 1)
    until(lambda: waiters(service) == 0)


@contextmanager
def left_alone(service: Service, who: Tenant, wanted: dict[str, str], count: str = "") -> Iterator[None]:
    """A request for images whose sender is there as long as the block."""
    body = json.dumps(wanted).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who.key}\r\n{count}"
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        yield


@pytest.mark.parametrize("count", ["", "x-stainless-retry-count: 2\r\n"])
def test_what_nobody_was_given_is_not_made_again(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    """A sender without patience asks again after its own time limit, by hand or as a new call of the SDK."""
    wanted = {"prompt": "a long one"}
    with left_alone(service, who, wanted, count):
        until(lambda: waiters(service) == 1)
        age(service, repeats.BARE_MS * 2)
    until(lambda: owed(service, who))
    monkeypatch.setattr(waiting, "WAIT_S", 0.0)
    again = service.ask("POST", "/v1/images/generations", wanted, key=who.key, headers={} if not count else FIRST)
    assert again.json()["error"]["code"] == "still_running"
    [only] = service.ask("GET", "/api/v2/generations", key=who.key).json()["items"]
    assert only["id"] in again.json()["error"]["message"]


def owed(service: Service, who: Tenant) -> bool:
    sql = "SELECT body FROM idempotency_keys WHERE scope = :scope"
    found = service.run(service.ctx.db.read(lambda tx: tx.all(sql, scope=f"client:{who.client_id}")))
    return any("owed" in row["body"] for row in found)


@pytest.mark.usefixtures("short")
def test_a_new_call_goes_on_waiting_as_it_was_told_to_and_the_next_is_another(service: Service, who: Tenant) -> None:
    """The SDK's own repeats are used up after six minutes; a call of the program after that counts from 0 again."""

    def generate(headers: dict[str, str]) -> Answer:
        return service.ask("POST", "/v1/images/generations", {"prompt": "slow"}, key=who.key, headers=headers)

    assert [generate(headers).status for headers in (FIRST, AGAIN, FIRST)] == [503, 503, 503]
    [only] = service.ask("GET", "/api/v2/generations", key=who.key).json()["items"]
    service.completed(only["id"], png())
    assert [generate(FIRST).status, generate(FIRST).status] == [200, 503]
    assert len(service.ask("GET", "/api/v2/generations", key=who.key).json()["items"]) == 2


def waiters(service: Service) -> int:
    """How many requests wait for their images in the service's loop."""

    async def count() -> int:
        return sum("Tail.wait_for" in repr(task.get_coro()) for task in asyncio.all_tasks())

    return service.run(count())


# What is made of what is asked.


@pytest.mark.parametrize(
    ("asked", "params"),
    [
        ({}, {"duration": 5, "mode": "standard", "aspect_ratio": "16:9"}),
        ({"seconds": "4"}, {"duration": 5}),
        ({"seconds": "8", "size": "720x1280"}, {"duration": 10, "aspect_ratio": "9:16", "mode": "standard"}),
        ({"seconds": 12, "size": "1792x1024"}, {"duration": 10, "aspect_ratio": "16:9", "mode": "pro"}),
        ({"seconds": "4", "duration": 10}, {"duration": 10}),
        ({"size": "1792x1024", "mode": "standard"}, {"mode": "standard"}),
        ({"size": "auto"}, {"aspect_ratio": "16:9"}),
        ({"size": "1024x1024", "aspect_ratio": "3:4"}, {"aspect_ratio": "3:4"}),
    ],
)
def test_lengths_and_sizes_become_the_nearest_there_are(
    service: Service, who: Tenant, asked: dict[str, Any], params: dict[str, Any]
) -> None:
    video = made(service, who, FIRST, **asked)
    found = row(service, video["id"])["params"]
    assert params.items() <= found.items()
    assert video["seconds"] == str(found["duration"])


def test_the_size_is_what_is_expected_until_there_is_a_file(service: Service, who: Tenant) -> None:
    assert made(service, who, FIRST, size="720x1280")["size"] == "720x1280"
    assert made(service, who, FIRST, size="1024x1792")["size"] == "1080x1920"
    assert made(service, who, FIRST, input_reference={"image_url": REFERENCE}, size="720x1280")["size"] == "auto"


@pytest.mark.parametrize(("size", "shape"), [("1024x1024", "1:1"), ("1536x1024", "3:2"), ("1024x1792", "9:16")])
@pytest.mark.usefixtures("short")
def test_an_image_has_the_nearest_shape(service: Service, who: Tenant, size: str, shape: str) -> None:
    wanted = {"prompt": "a fox", "size": size, "n": 2}
    service.ask("POST", "/v1/images/generations", wanted, key=who.key, headers=FIRST)
    items = service.ask("GET", "/api/v2/generations?kind=image", key=who.key).json()["items"]
    assert [one["params"]["aspect_ratio"] for one in items] == [shape, shape]


def test_an_asset_by_its_id_is_a_reference(service: Service, who: Tenant) -> None:
    first = made(service, who, FIRST, input_reference={"image_url": REFERENCE})
    asset = row(service, first["id"])["source"]["asset_id"]
    second = made(service, who, FIRST, input_reference={"file_id": asset})
    assert row(service, second["id"])["source"] == {"asset_id": asset}


def test_a_form_says_the_same_as_json(service: Service, who: Tenant) -> None:
    fields = {
        "prompt": "it moves",
        "duration": "10",
        "mode": "pro",
        "seed": "7",
        "metadata[order]": "4711",
        "input_reference[image_url]": REFERENCE,
    }
    video = send(service, who, form(fields), **FIRST).json()
    found = row(service, video["id"])
    assert found["params"] == {"duration": 10, "mode": "pro", "seed": 7}
    assert found["metadata"] == {"order": "4711"} and "asset_id" in found["source"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"prompt": ""},
        {"prompt": None},
        {"prompt": "x", "seconds": "0"},
        {"prompt": "x", "seconds": "long"},
        {"prompt": "x", "seconds": "4", "duration": 7},
        {"prompt": "x", "size": "0x720"},
        {"prompt": "x", "size": "large"},
        {"prompt": "x", "sizes": "1280x720"},
        {"prompt": "x", "input_reference": {}},
        {"prompt": "x", "input_reference": {"image_url": "https://example.com/a.png", "file_id": "x"}},
        {"prompt": "x", "input_reference": {"image_url": "http://127.0.0.1:9/a.png"}},
        {"prompt": "x", "input_reference": {"image_url": "file:///etc/passwd"}},
        {"prompt": "x", "input_reference": {"image_url": REFERENCE}, "asset_id": "0190"},
        {"prompt": "x", "metadata": {"a": "b" * 1001}},
        {"prompt": "x", "webhook_url": "http://169.254.169.254/"},
    ],
)
def test_what_makes_no_sense_is_refused(service: Service, who: Tenant, wanted: dict[str, Any]) -> None:
    answer = service.ask("POST", "/v1/videos", wanted, key=who.key, headers=FIRST)
    error = answer.json()["error"]
    assert (answer.status, error["type"]) == (400, "invalid_request_error"), answer.body
    assert videos(service, who) == []


@pytest.mark.parametrize(
    ("fields", "file"),
    [
        ({"prompt": "x\0y"}, None),
        ({"prompt": "x", "duration": "five"}, None),
        ({"prompt": "x", "prompt[a]": "y"}, None),
        ({"prompt": "x", "metadata": "y", "metadata[a]": "z"}, None),
        ({"prompt": "x", "input_reference[image_url]": REFERENCE}, png()),
        ({"prompt": "x"}, b""),
        ({}, png()),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(
    service: Service, who: Tenant, fields: dict[str, str], file: bytes | None
) -> None:
    answer = send(service, who, form(fields, file), **FIRST)
    assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request_error"), answer.body
    assert videos(service, who) == []


# Whose campaign it is.


def test_the_body_names_the_campaign_before_the_header_and_the_key(service: Service, who: Tenant) -> None:
    body, header = (
        service.ask("POST", "/api/v2/campaigns", {"name": name}, key=who.key).json()["id"] for name in ("a", "b")
    )
    named = {"X-Campaign-Id": header}
    assert made(service, who, FIRST | named, campaign_id=body)["campaign_id"] == body
    assert made(service, who, FIRST | named)["campaign_id"] == header
    assert made(service, who, FIRST)["campaign_id"] == who.campaign_id


def test_without_a_campaign_the_three_ways_are_told(service: Service) -> None:
    answer = make(service, service.tenant())
    error = answer.json()["error"]
    assert (answer.status, error["param"]) == (400, "campaign_id")
    assert all(word in error["message"] for word in ("extra_body", "X-Campaign-Id", "keys create --campaign"))


def test_a_campaign_that_was_deleted_takes_nothing_and_can_be_swept(service: Service, who: Tenant) -> None:
    assert service.ask("DELETE", f"/api/v2/campaigns/{who.campaign_id}", key=who.key).status == 204
    assert make(service, who, FIRST).json()["error"]["code"] == "campaign_not_found"
    assert service.run(service.ctx.db.write(lambda tx: campaigns.forget_deleted(tx, 10))) >= 1
    assert make(service, who, FIRST).json()["error"]["param"] == "campaign_id"


def test_a_key_has_no_campaign_of_another_client(service: Service, who: Tenant) -> None:
    other = service.tenant()
    wanted = {"name": "k", "client_id": other.client_id, "campaign_id": who.campaign_id}
    assert service.ask("POST", "/api/v2/keys", wanted).json()["errors"][0]["field"] == "campaign_id"
    fine = service.ask("POST", "/api/v2/keys", wanted | {"client_id": who.client_id})
    assert (fine.status, fine.json()["campaign_id"]) == (201, who.campaign_id)


def test_dev_mode_has_a_campaign_of_its_own(tmp_path: Path) -> None:
    with emulating() as provider, working(tmp_path, provider) as shop:
        made = [shop.http.post("/v1/videos", json={"prompt": f"boat {number}"}).json() for number in range(2)]
        own, *more = {one["campaign_id"] for one in made}
        assert not more and own != shop.campaign_id
        assert shop.http.get(f"/api/v2/campaigns/{own}").json()["name"] == "default"
        image = shop.http.post("/v1/images/generations", json={"prompt": "a fox"})
        assert base64.b64decode(image.json()["data"][0]["b64_json"])


# What another client has.


@pytest.mark.parametrize(
    "made_by",
    [one for one in OPERATIONS if one.path.startswith("/v1/videos/{id}")],
    ids=lambda one: f"{one.method} {one.path}",
)
def test_another_clients_video_is_as_good_as_none(service: Service, who: Tenant, made_by: Any) -> None:
    id, stranger = made(service, who, FIRST)["id"], service.tenant()
    answers = [
        service.ask(made_by.method, made_by.path.replace("{id}", one), key=stranger.key)
        for one in (id, new_id(service.ctx.now()))
    ]
    assert [answer.status for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json()
    assert videos(service, stranger) == [] and row(service, id)["id"] == id


def test_an_image_is_no_video(service: Service, who: Tenant) -> None:
    id = service.generate(who)["id"]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
        answer = service.ask(method, f"/v1/videos/{id}{path}", key=who.key)
        assert (answer.status, answer.json()["error"]["code"]) == (404, "video_not_found")
    assert videos(service, who) == []


# What goes wrong, and how it is told.


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/nothing", 404, "not_found_error"),
        ("GET", "/v1/videos/none", 404, "not_found_error"),
        ("PUT", "/v1/videos", 405, "invalid_request_error"),
        ("GET", "/v1/videos?limit=0", 400, "invalid_request_error"),
        ("GET", "/v1/videos?after=x", 400, "invalid_request_error"),
        ("GET", "/v1/videos?order=up", 400, "invalid_request_error"),
        ("GET", "/v1/models/none/such", 404, "not_found_error"),
        ("POST", "/v1/videos", 400, "invalid_request_error"),
    ],
)
def test_every_error_below_v1_has_openais_shape(
    service: Service, who: Tenant, method: str, path: str, status: int, kind: str
) -> None:
    answer = service.ask(method, path, key=who.key)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json().keys() == {"error"} and answer.json()["error"]["type"] == kind
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


def test_without_a_key_it_is_an_authentication_error(service: Service) -> None:
    for path in ("/v1/videos", "/v1/models"):
        answer = service.ask("GET", path, key="")
        assert (answer.status, answer.json()["error"]["type"]) == (401, "authentication_error")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_everything_else_keeps_its_own_shape(service: Service) -> None:
    for path in ("/v1", "/v10/videos", "/api/v1/videos"):
        assert service.ask("GET", path).headers["content-type"] == "application/problem+json"


def test_a_body_of_another_type_and_one_too_large_are_told_alike(service: Service, who: Tenant) -> None:
    typed = service.ask("POST", "/v1/videos", key=who.key, content=b"prompt=x", headers={"Content-Type": "text/plain"})
    assert (typed.status, typed.json()["error"]["type"]) == (415, "invalid_request_error")
    large = ask(service.port, "POST", "/v1/images/generations", key=who.key, headers={"Content-Length": "99999999"})
    assert (large.status, large.json()["error"]["code"]) == (413, "too_large")


def test_an_unfinished_video_has_no_bytes_and_stays(service: Service, who: Tenant) -> None:
    id = made(service, who, FIRST)["id"]
    for method, path, code in (("GET", "/content", "no_bytes"), ("DELETE", "", "unfinished")):
        answer = service.ask(method, f"/v1/videos/{id}{path}", key=who.key)
        assert (answer.status, answer.json()["error"]["code"]) == (409, code)
        assert answer.headers["x-should-retry"] == "false"
    assert videos(service, who) == [id]


def test_a_canceled_video_has_failed(service: Service, who: Tenant) -> None:
    id = made(service, who, FIRST)["id"]
    assert service.ask("POST", f"/api/v2/generations/{id}/cancel", {}, key=who.key).status == 200
    shown = service.ask("GET", f"/v1/videos/{id}", key=who.key).json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "canceled")
    assert service.ask("DELETE", f"/v1/videos/{id}", key=who.key).json()["deleted"] is True


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("moderated", 400, "invalid_request_error"),
        ("invalid_input", 400, "invalid_request_error"),
        ("provider_unavailable", 503, "api_error"),
        ("provider_failed", 502, "api_error"),
        ("submit_unknown", 502, "api_error"),
    ],
)
def test_a_failed_image_is_told_and_not_sent_again(
    service: Service, who: Tenant, code: str, status: int, kind: str
) -> None:
    answers: list[Answer] = []
    body = {"prompt": f"an image that is {code}", "n": 2}
    asking = threading.Thread(
        target=lambda: answers.append(service.ask("POST", "/v1/images/generations", body, key=who.key, headers=FIRST))
    )
    asking.start()
    items = until(lambda: service.ask("GET", "/api/v2/generations", key=who.key).json()["items"])
    for one in items:
        failed = Failure(code, "It came to nothing.")
        service.run(
            service.ctx.db.write(
                lambda tx, id=one["id"], why=failed: generations.move(
                    tx, id, "failed", now=service.ctx.now(), failure=why
                )
            )
        )
    asking.join(20)
    error = answers[0].json()["error"]
    assert (answers[0].status, error["type"]) == (status, kind)
    assert "It came to nothing." in error["message"] and any(one["id"] in error["message"] for one in items)
    assert status == 400 or answers[0].headers["x-should-retry"] == "false"


def test_the_images_that_were_made_are_given_when_others_failed(service: Service, who: Tenant) -> None:
    answers: list[Answer] = []
    body = {"prompt": "half of them", "n": 2, "response_format": "url"}
    asking = threading.Thread(
        target=lambda: answers.append(service.ask("POST", "/v1/images/generations", body, key=who.key))
    )
    asking.start()
    good, bad = until(lambda: service.ask("GET", "/api/v2/generations", key=who.key).json()["items"])
    service.failed(bad["id"])
    service.completed(good["id"], png())
    asking.join(20)
    [one] = answers[0].json()["data"]
    assert one["id"] == good["id"] and good["id"] in one["url"]


# The rest.


@pytest.mark.parametrize("size", [1, 2, 3, 262_143, 262_144, 262_145, 700_001])
async def test_base64_in_pieces_is_the_base64_of_the_whole(size: int) -> None:
    content = bytes(number % 251 for number in range(size))

    async def pieces() -> Any:
        for start in range(0, size, 100_000):
            yield content[start : start + 100_000]

    assert b"".join([text async for text in images._as_base64(pieces())]) == base64.b64encode(content)


def test_the_list_goes_both_ways_page_by_page(service: Service, who: Tenant) -> None:
    made_here = [made(service, who, FIRST)["id"] for _ in range(5)]
    service.generate(who)
    for order, wanted in (("asc", made_here), ("desc", made_here[::-1])):
        found, after, pages = list[str](), "", 0
        while True:
            page = service.ask("GET", f"/v1/videos?limit=2&order={order}{after}", key=who.key).json()
            ids = [one["id"] for one in page["data"]]
            found, pages = found + ids, pages + 1
            assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert (found, pages) == (wanted, 3)


def test_how_soon_to_ask_again_depends_on_the_age(service: Service, who: Tenant) -> None:
    id = made(service, who, FIRST)["id"]

    def told() -> int:
        return int(service.ask("GET", f"/v1/videos/{id}", key=who.key).headers["openai-poll-after-ms"])

    assert told() == 1000
    service.run(
        service.ctx.db.write(
            lambda tx: tx.run("UPDATE generations SET created_at = created_at - 30000 WHERE id = :id", id=id)
        )
    )
    assert 3000 <= told() < 4000


async def test_an_answer_that_is_renewed_is_as_new(tmp_path: Path) -> None:
    migrate(tmp_path / "kept.db")
    db = await SqliteDb.open(tmp_path / "kept.db")
    try:
        await db.write(lambda tx: kept_answers.put(tx, "s", "k", "h", 1, status=200, body="[]"))
        await db.write(lambda tx: kept_answers.renew(tx, "s", "k", 5, "[]", "{}"))
        await db.write(lambda tx: kept_answers.renew(tx, "s", "k", 9, "[]", "[1]"))  # another one took its place
        found = await db.read(lambda tx: kept_answers.get(tx, "s", "k"))
        assert found is not None and (found.created_at, found.body) == (5, "{}")
    finally:
        await db.close()
