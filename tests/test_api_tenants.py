"""Two clients: what one has does not exist for the other, on any route, by any way in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api_service import Service, Tenant, form, png, running

from backend.ids import new_id
from backend.web.operation import OPERATIONS, Operation


@dataclass(frozen=True)
class Stage:
    """Two clients of one service; `things` are the ids that the first one has, by the noun of their path."""

    service: Service
    owner: Tenant
    stranger: Tenant
    things: dict[str, str]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(tmp_path_factory.mktemp("tenants")) as service:
        owner, stranger = service.tenant("owner"), service.tenant("stranger")
        image, video = service.generate(owner)["id"], service.generate(owner, kind="video")["id"]
        service.completed(image, png(), png(kind="JPEG"))
        body, headers = form(png())
        asset = service.ask("POST", "/api/v2/assets", key=owner.key, content=body, headers=headers).json()["id"]
        things = {"generations": image, "images": image, "videos": video, "assets": asset}
        things |= {"clients": owner.client_id, "campaigns": owner.campaign_id}
        yield Stage(service, owner, stranger, things)


def with_ids(found: Operation) -> bool:
    return "{id}" in found.path and found.path.startswith("/api/v2/") and not found.path.startswith("/api/v2/keys")


BODIES: dict[str, Any] = {"PATCH": {"name": "mine now"}}


@pytest.mark.parametrize(
    "made", [one for one in OPERATIONS if with_ids(one)], ids=lambda one: f"{one.method} {one.path}"
)
def test_another_clients_thing_is_as_good_as_none(stage: Stage, made: Operation) -> None:
    noun = made.path.split("/")[3]
    path = made.path.replace("{which}", "first")
    answers = []
    for id in (stage.things[noun], new_id(stage.service.ctx.now())):
        answer = stage.service.ask(
            made.method, path.replace("{id}", id), BODIES.get(made.method), key=stage.stranger.key
        )
        assert answer.status == (403 if made.auth == "admin" else 404)
        problem = answer.json()
        del problem["request_id"]
        answers.append(problem)
    assert answers[0] == answers[1]


def test_the_matrix_knows_every_route_that_names_a_thing(stage: Stage) -> None:
    nouns = {one.path.split("/")[3] for one in OPERATIONS if with_ids(one)}
    assert nouns == set(stage.things)


def test_nothing_of_the_owners_was_touched(stage: Stage) -> None:
    shown = stage.service.ask("GET", f"/api/v2/campaigns/{stage.owner.campaign_id}", key=stage.owner.key)
    assert (shown.status, shown.json()["name"]) == (200, "campaign")
    assert stage.service.ask("GET", f"/api/v2/images/{stage.things['images']}/data", key=stage.owner.key).status == 200


@pytest.mark.parametrize(
    "path",
    ["generations", "generations?client_id={clients}", "generations?campaign_id={campaigns}", "assets", "campaigns"],
)
def test_a_list_holds_nothing_of_another_client(stage: Stage, path: str) -> None:
    answer = stage.service.ask("GET", f"/api/v2/{path.format(**stage.things)}", key=stage.stranger.key)
    assert answer.status == 200
    assert not any(id in answer.body.decode() for id in stage.things.values())


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


@pytest.mark.parametrize("made", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_every_route_but_the_public_ones_asks_for_a_key(stage: Stage, made: Operation) -> None:
    path = re.sub(r"{\w+}", new_id(stage.service.ctx.now()), made.path)
    public = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/webhooks/{provider}/{generation_id}/{nonce}"}
    answer = stage.service.ask(made.method, path, BODIES.get(made.method), key="")
    is_public = made.path in public or made.path.startswith("/docs")
    assert (made.auth == "none") == is_public
    assert is_public or answer.status == 401
