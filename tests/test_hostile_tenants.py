"""Two clients again, by the description of the service: what is not one's own is not there, no field is a way in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from api_service import Service, Tenant, form, png, running
from webserving import Answer

from backend.ids import new_id

CANARY = "canary-of-the-owner"
METHODS = ("get", "post", "patch", "delete")


@dataclass
class Stage:
    """The owner's things carry the canary; `things` are their ids by the noun they go by."""

    service: Service
    owner: Tenant
    stranger: Tenant
    things: dict[str, str]
    routes: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        return self.service.ask(method.upper(), path, body, key=more.pop("key", self.stranger.key), **more)

    def nobodys(self) -> str:
        return new_id(self.service.ctx.now())


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(tmp_path_factory.mktemp("hostile-tenants")) as service:
        owner, stranger = service.tenant(CANARY), service.tenant("stranger")
        mine = {"prompt": CANARY, "metadata": {CANARY: CANARY}}
        image, video = service.generate(owner, **mine)["id"], service.generate(owner, kind="video", **mine)["id"]
        failed, queued = service.generate(owner, **mine)["id"], service.generate(owner, **mine)["id"]
        batch = service.generate(owner, copies=2, **mine)["items"][0]["batch_id"]
        listening = {"url": f"https://hooks.example.com/{CANARY}"}
        listener = service.ask("POST", "/api/v2/webhook-endpoints", listening, key=owner.key).json()["id"]
        service.completed(image, png(), png(kind="JPEG"))
        service.failed(failed)
        sent = service.ask("GET", "/api/v2/webhook-deliveries", key=owner.key).json()["items"][0]["id"]
        body, headers = form(png(), filename=f"{CANARY}.png")
        asset = service.ask("POST", "/api/v2/assets", key=owner.key, content=body, headers=headers).json()["id"]
        key = service.ask("POST", "/api/v2/keys", {"name": CANARY, "client_id": owner.client_id}).json()["id"]
        things = {"generations": image, "images": image, "videos": video, "assets": asset, "keys": key}
        things |= {"clients": owner.client_id, "campaigns": owner.campaign_id, "failed": failed, "queued": queued}
        things |= {"webhook-endpoints": listener, "webhook-deliveries": sent}
        staged = Stage(service, owner, stranger, things | {"batch": batch})
        described = service.ask("GET", "/openapi.json").json()["paths"]
        staged.routes = {(m, p): one[m] for p, one in described.items() for m in METHODS if m in one}
        yield staged


def everything(stage: Stage) -> str:
    """All the owner has, as the database holds it."""
    tables = ["clients", "campaigns", "assets", "generations", "api_keys", "trash"]
    tables += ["events", "webhook_endpoints", "webhook_deliveries"]

    async def read(tx: Any) -> list[Any]:
        found = []
        for table in tables:
            rows = await tx.all(f"SELECT * FROM {table}")  # noqa: S608
            found += [tuple(row) for row in rows if stage.stranger.client_id not in tuple(row)]
        return found

    return repr(stage.service.run(stage.service.ctx.db.read(read)))


def problem(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "request_id"}


def routes_with_ids(stage: Stage) -> list[tuple[str, str]]:
    return [(method, path) for method, path in stage.routes if "{id}" in path]


@pytest.mark.hazard(32)
def test_on_no_route_can_anothers_thing_be_told_from_none(stage: Stage) -> None:
    before = everything(stage)
    asked = 0
    for method, path in routes_with_ids(stage):
        noun = path.split("/")[3]
        for mine in {stage.things[noun], *(stage.things[one] for one in ("failed", "queued") if noun == "generations")}:
            answers = []
            for id in (mine, stage.nobodys()):
                stolen = {"enabled": False} if noun == "webhook-endpoints" else {"name": "stolen"}
                body = stolen if method == "patch" else {} if method == "post" else None
                answers.append(stage.ask(method, path.replace("{id}", id).replace("{which}", "first"), body))
                assert CANARY not in answers[-1].body.decode()
            assert answers[0].status in (403, 404) and problem(answers[0]) == problem(answers[1]), (method, path)
            assert answers[0].status == 404 or noun in ("keys", "clients"), (method, path)
            asked += 1
    assert asked >= 25 and everything(stage) == before


def references(stage: Stage) -> list[tuple[dict[str, Any], int]]:
    """Bodies that name a thing of the owner's, and what they are answered."""
    own, things = {"campaign_id": stage.stranger.campaign_id}, stage.things
    missing: list[dict[str, Any]] = [{"campaign_id": things["campaigns"], "prompt": "x"}]
    for name, id in (("asset_id", "assets"), ("image_id", "images"), ("video_id", "videos"), ("image_id", "queued")):
        missing.append({**own, name: things[id]})
        missing.append({**own, "prompt": "x", name: things[id], "copies": 2})
    return [(body, 404) for body in missing] + [({**own, "prompt": "x", "client_id": things["clients"]}, 422)]


@pytest.mark.hazard(32)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_no_body_reaches_anothers_thing(stage: Stage, kind: str) -> None:
    before = everything(stage)
    for body, status in references(stage):
        theirs = stage.ask("POST", f"/api/v2/generate/{kind}", body)
        text = json.dumps(body)
        for id in set(stage.things.values()):
            text = text.replace(id, stage.nobodys())
        nobodys = stage.ask("POST", f"/api/v2/generate/{kind}", json.loads(text))
        assert theirs.status == status and problem(theirs) == problem(nobodys), body
        assert CANARY not in theirs.body.decode()
    assert everything(stage) == before


@pytest.mark.hazard(32)
@pytest.mark.parametrize("name", ["asset_id", "image_id", "video_id"])
def test_no_end_image_is_anothers(stage: Stage, name: str) -> None:
    body, headers = form(png())
    mine = stage.ask("POST", "/api/v2/assets", content=body, headers=headers).json()["id"]
    wanted = {"campaign_id": stage.stranger.campaign_id, "asset_id": mine, "mode": "pro"}
    answers = [
        stage.ask("POST", "/api/v2/generate/video", {**wanted, "end_image": {name: id}})
        for id in (stage.things[f"{name.removesuffix('_id')}s"], stage.nobodys())
    ]
    assert [answer.status for answer in answers] == [404, 404] and problem(answers[0]) == problem(answers[1])


@pytest.mark.hazard(32)
def test_no_filter_of_any_list_shows_anothers(stage: Stage) -> None:
    ids = set(stage.things.values())
    asked = 0
    for (method, path), made in stage.routes.items():
        if method != "get" or "{" in path or not path.startswith("/api/v2/") or path.endswith("/webhook-secret"):
            continue  # a secret is no list; tests/test_webhooks_api.py asks for another's
        names = [one["name"] for one in made["parameters"] if one["in"] == "query"]
        tries = [f"{name}={id}" for name in names if name.endswith("_id") for id in ids] + ["limit=100"]
        tries += [f"q={CANARY}"] if "q" in names else []
        for query in tries:
            answer = stage.ask("GET", f"{path}?{query}")
            assert answer.status in (200, 403), (path, query)
            text = answer.body.decode()
            assert CANARY not in text and not any(id in text for id in ids), (path, query)
            asked += 1
    assert asked > 25


@pytest.mark.hazard(32)
def test_an_idempotency_key_is_no_way_to_anothers_answer(stage: Stage) -> None:
    headers = {"Idempotency-Key": CANARY}
    mine = {"campaign_id": stage.owner.campaign_id, "prompt": CANARY}
    first = stage.ask("POST", "/api/v2/generate/image", mine, key=stage.owner.key, headers=headers)
    assert first.status == 202
    theft = stage.ask("POST", "/api/v2/generate/image", mine, headers=headers)
    assert theft.status == 404 and "idempotent-replayed" not in theft.headers
    for path in ("/api/v2/assets", "/api/v2/campaigns"):
        other = stage.ask("POST", path, {"name": "x"} if "camp" in path else {"url": "junk-url"}, headers=headers)
        assert other.json().get("code") != "idempotency_key_reused"
    assert stage.ask("POST", "/api/v2/generate/image", mine, key=stage.service.admin, headers=headers).status == 202


@pytest.mark.hazard(32)
def test_no_upload_is_for_another_client(stage: Stage) -> None:
    body, headers = form(png())
    before = everything(stage)
    answers = [
        stage.ask("POST", f"/api/v2/assets?client_id={id}", content=body, headers=headers)
        for id in (stage.owner.client_id, stage.nobodys())
    ]
    answers += [
        stage.ask("POST", "/api/v2/campaigns", {"name": "x", "client_id": id})
        for id in (stage.owner.client_id, stage.nobodys())
    ]
    assert [answer.status for answer in answers] == [404] * 4
    assert problem(answers[0]) == problem(answers[1]) == problem(answers[2]) == problem(answers[3])
    assert everything(stage) == before


@pytest.mark.hazard(32)
def test_every_route_of_the_description_asks_for_the_key_it_names(stage: Stage) -> None:
    for (method, path), made in stage.routes.items():
        spelled = path.replace("{id}", stage.things.get(path.split("/")[-2], stage.nobodys())).replace(
            "{which}", "last"
        )
        answer = stage.ask(method, spelled, {} if method in ("post", "patch") else None, key="")
        assert (answer.status == 401) == bool(made["security"]), (method, path)
        assert CANARY not in answer.body.decode()


# What a row or a caller has and a request must not set.
FOREIGN: dict[str, Any] = {"id": "x", "status": "completed", "stage": "completed", "url": "http://x", "sha256": "0"}
FOREIGN |= {"cost_usd": {"actual": 0}, "cost_estimated_micros": 0, "cost_actual_micros": 0, "budget_micros": 1}
FOREIGN |= {"spent_usd": 0, "reserved_usd": 0, "settled_micros": 0}
FOREIGN |= {"key_id": "x", "nonce": "x", "provider_id": "x", "created_at": "2020-01-01T00:00:00Z", "due_at": 0}
FOREIGN |= {"retry_of": "x", "batch_id": "x", "lease_owner": "x", "possibly_charged": False, "file_name": "/etc/passwd"}
FOREIGN |= {"hash": "x", "prefix": "x", "revoked_at": None, "role": "admin", "is_admin": True, "__proto__": {}}
FOREIGN |= {"deleted_at": None, "Prompt": "x", "campaignId": "x", "source": {}, "params": {}, "outputs": []}


def right_body(stage: Stage, path: str) -> dict[str, Any]:
    """What this route takes, so that the foreign field is all that is wrong."""
    if "/generate/" in path:
        return {"campaign_id": stage.stranger.campaign_id, "prompt": "x"}
    if path.endswith("/keys"):
        return {"name": "x", "client_id": stage.stranger.client_id}
    if "webhook-endpoints" in path:
        return {"url": "https://hooks.example.com/"}
    return {"url": "http://example.com/a.png"} if path.endswith("/assets") else {"name": "x"}


@pytest.mark.hazard(33)
def test_a_field_that_is_not_the_clients_to_set_is_refused_by_name(stage: Stage) -> None:
    before, taking = everything(stage), 0
    for (method, path), made in stage.routes.items():
        if "application/json" not in made.get("requestBody", {}).get("content", {}):
            continue
        spelled = path.replace("{id}", stage.things.get(path.split("/")[3], ""))
        whose = "?client_id=" + stage.stranger.client_id if path.endswith("/assets") else ""
        for name, value in FOREIGN.items():
            if name == "url" and "webhook-endpoints" in path:
                continue
            body = {**right_body(stage, path), name: value}
            answer = stage.ask(method, spelled + whose, body, key=stage.service.admin)
            assert answer.status == 422, (method, path, name)
            assert name in [error["field"] for error in answer.json()["errors"]], (method, path, answer.body)
        taking += 1
    assert taking >= 7 and everything(stage) == before


@pytest.mark.hazard(33)
def test_a_reference_takes_no_foreign_field_either(stage: Stage) -> None:
    wanted = {**right_body(stage, "/generate/"), "mode": "pro"}
    for name in ("url", "client_id", "file_name", "status"):
        body = {**wanted, "end_image": {"asset_id": stage.nobodys(), name: "x"}}
        answer = stage.ask("POST", "/api/v2/generate/video", body)
        assert (answer.status, answer.json()["errors"][0]["field"]) == (422, f"end_image.{name}")


@pytest.mark.hazard(33)
@pytest.mark.parametrize("path", ["/api/v2/clients", "/api/v2/keys"])
def test_a_clients_key_makes_no_client_and_no_key_whatever_it_says(stage: Stage, path: str) -> None:
    for body in ({"name": "x"}, {"name": "x", "admin": True}, {"name": "x", "client_id": stage.stranger.client_id}):
        assert stage.ask("POST", path, body).status == 403
