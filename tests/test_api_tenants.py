"""Two clients: what one has does not exist for the other, on any route, by any way in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api_service import Service, Tenant, form, png, running
from webserving import Answer

from backend.core.ids import floor_id, new_id
from backend.web.calls.operation import OPERATIONS, Operation

pytestmark = pytest.mark.usefixtures("nobody_waits")


@dataclass(frozen=True)
class Stage:
    """Two clients of one service; `things` are the ids that the first one has, by the noun before them in a path."""

    service: Service
    owner: Tenant
    stranger: Tenant
    things: dict[str, str]
    endpoint: dict[str, Any]
    sent: list[str]  # the deliveries to that endpoint


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(tmp_path_factory.mktemp("tenants")) as service:
        owner, stranger = service.tenant("owner"), service.tenant("stranger")
        image, video = service.generate(owner)["id"], service.generate(owner, kind="video")["id"]
        hooks = {"url": "https://hooks.example.com/"}
        endpoint = service.ask("POST", "/api/v2/webhook-endpoints", hooks, key=owner.key).json()
        service.completed(image, png(), png(kind="JPEG"))
        body, headers = form(png())
        asset = service.ask("POST", "/api/v2/assets", key=owner.key, content=body, headers=headers).json()["id"]
        sent = [one["id"] for one in service.ask("GET", "/api/v2/webhook-deliveries", key=owner.key).json()["items"]]
        things = {"generations": image, "images": image, "videos": video, "assets": asset}
        things |= {"clients": owner.client_id, "campaigns": owner.campaign_id}
        things |= {"webhook-endpoints": endpoint["id"], "webhook-deliveries": sent[0]}
        yield Stage(service, owner, stranger, things, endpoint, sent)


def with_ids(found: Operation) -> bool:
    return "{id}" in found.path and not found.path.startswith("/api/v2/keys")


def noun_of(path: str) -> str:
    return path.split("/{id}")[0].rpartition("/")[2]


def body_for(made: Operation) -> Any:
    """What would change the thing, if it were the caller's."""
    if made.method != "PATCH":
        return None
    return {"enabled": False} if noun_of(made.path) == "webhook-endpoints" else {"name": "mine now"}


def problem(answer: Answer) -> Any:
    """What is said, in the shape of the route, but for the request's own id."""
    told = answer.json()
    if answer.headers["content-type"] == "application/problem+json":
        del told["request_id"]
    return told


@pytest.mark.parametrize(
    "made", [one for one in OPERATIONS if with_ids(one)], ids=lambda one: f"{one.method} {one.path}"
)
def test_another_clients_thing_is_as_good_as_none(stage: Stage, made: Operation) -> None:
    path = made.path.replace("{which}", "first")
    answers = [
        stage.service.ask(made.method, path.replace("{id}", id), body_for(made), key=stage.stranger.key)
        for id in (stage.things[noun_of(path)], new_id(stage.service.ctx.now()))
    ]
    assert [answer.status for answer in answers] == [403 if made.auth == "admin" else 404] * 2
    assert problem(answers[0]) == problem(answers[1])
    assert path.startswith("/v1/") == ("error" in answers[0].json())


@pytest.mark.parametrize(
    "made", [one for one in OPERATIONS if with_ids(one) and one.head], ids=lambda one: f"{one.method} {one.path}"
)
def test_not_even_the_head_of_another_clients_thing_is_there(stage: Stage, made: Operation) -> None:
    path = made.path.replace("{which}", "first").replace("{id}", stage.things[noun_of(made.path)])
    answer = stage.service.ask("HEAD", path, key=stage.stranger.key)
    assert (answer.status, answer.body) == (404, b"")


def test_the_matrix_knows_every_route_that_names_a_thing(stage: Stage) -> None:
    assert {noun_of(one.path) for one in OPERATIONS if with_ids(one)} == set(stage.things)


def test_nothing_of_the_owners_was_touched(stage: Stage) -> None:
    shown = stage.service.ask("GET", f"/api/v2/campaigns/{stage.owner.campaign_id}", key=stage.owner.key)
    assert (shown.status, shown.json()["name"]) == (200, "campaign")
    assert stage.service.ask("GET", f"/api/v2/images/{stage.things['images']}/data", key=stage.owner.key).status == 200
    path = f"/api/v2/webhook-endpoints/{stage.things['webhook-endpoints']}"
    created = {name: value for name, value in stage.endpoint.items() if name != "secret"}
    assert stage.service.ask("GET", path, key=stage.owner.key).json() == created
    sent = stage.service.ask("GET", "/api/v2/webhook-deliveries", key=stage.owner.key).json()["items"]
    assert [one["id"] for one in sent] == stage.sent


# Each list and what narrows it: the owner finds something of its own there, or the test would prove nothing.
LISTS = [
    "/api/v2/generations",
    "/api/v2/generations?client_id={clients}",
    "/api/v2/generations?campaign_id={campaigns}",
    "/api/v2/assets",
    "/api/v2/campaigns",
    "/api/v2/clients",
    "/api/v2/usage?group_by=campaign",
    "/api/v2/usage?group_by=client",
    "/api/v2/usage?group_by=key&format=csv",
    "/api/v2/usage?client_id={clients}",
    "/api/v2/usage?campaign_id={campaigns}&format=csv",
    "/api/v2/webhook-endpoints",
    "/api/v2/webhook-deliveries",
    "/api/v2/webhook-deliveries?endpoint_id={webhook-endpoints}",
    "/api/v2/webhook-deliveries?generation_id={images}",
    "/api/v2/webhook-secret",
    "/api/v2/events?last_event_id={beginning}",
    "/v1/videos",
    "/v1/videos?after={latest}",
    "/v1/videos?after={beginning}&order=asc",
]


def ids_in(stage: Stage, answer: Answer) -> list[str]:
    ids = (*stage.things.values(), stage.owner.key_id)
    return [id for id in ids if id in answer.body.decode()]


@pytest.mark.parametrize("path", LISTS)
def test_a_list_holds_nothing_of_another_client(stage: Stage, path: str) -> None:
    places = {"beginning": floor_id(0), "latest": new_id(stage.service.ctx.now() + 60_000)}
    spelled = path.format(**stage.things, **places)
    theirs, mine = (stage.service.ask("GET", spelled, key=who.key) for who in (stage.stranger, stage.owner))
    assert (theirs.status, mine.status) == (200, 200)
    assert ids_in(stage, mine) and not ids_in(stage, theirs)


def test_the_lists_are_all_there_are() -> None:
    listed = {path.partition("?")[0] for path in LISTS}
    # models are the same for everybody
    asked = {one.path for one in OPERATIONS if one.method == "GET" and one.auth == "key" and "{" not in one.path}
    assert asked - {"/v1/models"} == listed


@pytest.mark.parametrize("noun", ["clients", "campaigns", "generations"])
@pytest.mark.parametrize("path", ["/api/v2/{noun}s/{id}/events", "/api/v2/events?{noun}_id={id}"])
def test_a_stream_of_another_clients_is_refused_and_the_owners_tells(stage: Stage, noun: str, path: str) -> None:
    spelled = path.format(noun=noun.removesuffix("s"), id=stage.things[noun])
    heads = {"Last-Event-ID": floor_id(0)}
    theirs, mine = (
        stage.service.ask("GET", spelled, key=who.key, headers=heads) for who in (stage.stranger, stage.owner)
    )
    assert (theirs.status, theirs.headers["content-type"]) == (404, "application/problem+json")
    assert (mine.status, mine.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    assert stage.things["generations"] in mine.body.decode()


def test_the_secret_of_another_client_is_not_there(stage: Stage) -> None:
    answers = [
        stage.service.ask("GET", f"/api/v2/webhook-secret?client_id={id}", key=stage.stranger.key)
        for id in (stage.owner.client_id, new_id(stage.service.ctx.now()))
    ]
    assert [answer.status for answer in answers] == [404, 404] and problem(answers[0]) == problem(answers[1])


@pytest.mark.parametrize(
    "wanted",
    [
        {"campaign_id": "{campaigns}", "prompt": "x"},
        {"client_id": "{clients}", "prompt": "x"},
        {"asset_id": "{assets}"},
        {"image_id": "{images}"},
        {"video_id": "{videos}"},
    ],
)
def test_another_clients_things_cannot_be_built_on(stage: Stage, wanted: dict[str, str]) -> None:
    body = {"campaign_id": stage.stranger.campaign_id} | {k: v.format(**stage.things) for k, v in wanted.items()}
    for kind in ("image", "video"):
        answer = stage.service.ask("POST", f"/api/v2/generate/{kind}", body, key=stage.stranger.key)
        assert answer.status == (422 if "client_id" in wanted else 404)
    assert stage.service.ask("GET", "/api/v2/generations", key=stage.stranger.key).json()["items"] == []


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/videos"])
@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"campaign_id": "{campaigns}"}, 404),
        ({"client_id": "{clients}"}, 400),
        ({"asset_id": "{assets}"}, 404),
        ({"image_id": "{images}"}, 404),
        ({"video_id": "{videos}"}, 404),
    ],
)
def test_nor_by_the_openai_face(stage: Stage, path: str, wanted: dict[str, str], status: int) -> None:
    body = {"prompt": "x", "campaign_id": stage.stranger.campaign_id}
    body |= {name: value.format(**stage.things) for name, value in wanted.items()}
    answer = stage.service.ask("POST", path, body, key=stage.stranger.key)
    assert (answer.status, set(answer.json())) == (status, {"error"})
    assert stage.service.ask("GET", "/api/v2/generations", key=stage.stranger.key).json()["items"] == []


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/videos"])
def test_nor_by_the_header_that_names_a_campaign(stage: Stage, path: str) -> None:
    heads = {"X-Campaign-Id": stage.owner.campaign_id}
    answer = stage.service.ask("POST", path, {"prompt": "x"}, key=stage.stranger.key, headers=heads)
    assert (answer.status, answer.json()["error"]["code"]) == (404, "campaign_not_found")


@pytest.mark.parametrize("field", ["file_id", "end_image"])
def test_nor_by_a_reference_of_a_video(stage: Stage, field: str) -> None:
    body: dict[str, Any] = {"prompt": "x", "campaign_id": stage.stranger.campaign_id, "mode": "pro"}
    if field == "file_id":
        body["input_reference"] = {"file_id": stage.things["assets"]}
    else:
        body["end_image"] = {"image_id": stage.things["images"]}
    answer = stage.service.ask("POST", "/v1/videos", body, key=stage.stranger.key)
    assert (answer.status, set(answer.json())) == (404, {"error"})


def test_no_endpoint_is_made_for_another_client(stage: Stage) -> None:
    for id in (stage.owner.client_id, new_id(stage.service.ctx.now())):
        wanted = {"url": "https://hooks.example.com/", "client_id": id}
        answer = stage.service.ask("POST", "/api/v2/webhook-endpoints", wanted, key=stage.stranger.key)
        assert (answer.status, answer.json()["code"]) == (404, "client_not_found")


def test_an_end_image_of_another_client_cannot_be_built_on(stage: Stage) -> None:
    body, headers = form(png())
    own = stage.service.ask("POST", "/api/v2/assets", key=stage.stranger.key, content=body, headers=headers).json()[
        "id"
    ]
    wanted = {"campaign_id": stage.stranger.campaign_id, "asset_id": own, "mode": "pro"}
    wanted["end_image"] = {"image_id": stage.things["images"]}
    assert stage.service.ask("POST", "/api/v2/generate/video", wanted, key=stage.stranger.key).status == 404


def test_an_admin_does_not_mix_two_clients_things(stage: Stage) -> None:
    wanted = {"campaign_id": stage.stranger.campaign_id, "image_id": stage.things["images"]}
    assert stage.service.ask("POST", "/api/v2/generate/image", wanted).status == 404
    wanted = {"campaign_id": stage.stranger.campaign_id, "prompt": "x", "client_id": stage.owner.client_id}
    assert stage.service.ask("POST", "/api/v2/generate/image", wanted).status == 422


def test_an_idempotency_key_of_another_client_means_nothing(stage: Stage) -> None:
    headers = {"Idempotency-Key": "shared"}
    ids = set()
    for who in (stage.owner, stage.stranger):
        wanted = {"campaign_id": who.campaign_id, "prompt": "x"}
        answer = stage.service.ask("POST", "/api/v2/generate/image", wanted, key=who.key, headers=headers)
        assert answer.status == 202 and "idempotent-replayed" not in answer.headers
        ids.add(answer.json()["id"])
    assert len(ids) == 2


@pytest.mark.parametrize("headers", [{"Idempotency-Key": "shared-video"}, {"x-stainless-retry-count": "1"}, {}])
def test_the_same_request_of_another_client_joins_nothing(stage: Stage, headers: dict[str, str]) -> None:
    made = []
    for who in (stage.owner, stage.stranger):
        wanted = {"campaign_id": who.campaign_id, "prompt": f"once {headers}"}
        made.append(stage.service.ask("POST", "/v1/videos", wanted, key=who.key, headers=headers))
        assert made[-1].status == 200 and "idempotent-replayed" not in made[-1].headers
    assert made[0].json()["id"] != made[1].json()["id"]
    theft = {"campaign_id": stage.owner.campaign_id, "prompt": f"once {headers}"}
    answer = stage.service.ask("POST", "/v1/videos", theft, key=stage.stranger.key, headers=headers)
    assert answer.status == 404 and made[0].json()["id"] not in answer.body.decode()


def test_the_secret_of_a_new_endpoint_is_its_makers_alone(stage: Stage) -> None:
    made = []
    for who in (stage.owner, stage.stranger):
        wanted, headers = {"url": "https://hooks.example.com/shared"}, {"Idempotency-Key": "shared-endpoint"}
        made.append(stage.service.ask("POST", "/api/v2/webhook-endpoints", wanted, key=who.key, headers=headers).json())
    assert made[0]["id"] != made[1]["id"] and made[0]["secret"] != made[1]["secret"]
    assert [one["client_id"] for one in made] == [stage.owner.client_id, stage.stranger.client_id]


@pytest.mark.parametrize("made", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_every_route_but_the_public_ones_asks_for_a_key(stage: Stage, made: Operation) -> None:
    path = re.sub(r"{\w+}", new_id(stage.service.ctx.now()), made.path)
    public = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/webhooks/{provider}/{generation_id}/{nonce}"}
    answer = stage.service.ask(made.method, path, body_for(made), key="")
    is_public = made.path in public or made.path.startswith("/docs")
    assert (made.auth == "none") == is_public
    assert is_public or answer.status == 401
