"""Two clients again, by the description of the service: what is not one's own is not there, no field is a way in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from api_service import Service, Tenant, form, png, running
from webserving import Answer

from backend.core.ids import floor_id, new_id

pytestmark = pytest.mark.usefixtures("nobody_waits")
CANARY = "canary-of-the-owner"
METHODS = ("get", "post", "patch", "delete")


@dataclass
class Stage:
    """The owner's things carry the canary; `things` are their ids by the noun they go by.

    `owns` says of the stranger's own id what noun it goes by.
    """

    service: Service
    owner: Tenant
    stranger: Tenant
    things: dict[str, str]
    routes: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @property
    def owns(self) -> dict[str, str]:
        return {"clients": self.stranger.client_id, "campaigns": self.stranger.campaign_id}

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
    tables += ["events", "webhook_endpoints", "webhook_deliveries", "webhook_attempts", "balances", "usage_days"]

    async def read(tx: Any) -> list[Any]:
        found = []
        for table in tables:
            rows = await tx.all(f"SELECT * FROM {table}")  # noqa: S608
            found += [tuple(row) for row in rows if not set(stage.owns.values()) & set(tuple(row))]
        return found

    return repr(stage.service.run(stage.service.ctx.db.read(read)))


def problem(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "request_id"}


def wrong_fields(answer: Answer) -> list[str]:
    """What is named in the refusal; OpenAI's shape names the first one."""
    told = answer.json()
    return [told["error"]["param"]] if "error" in told else [error["field"] for error in told["errors"]]


def noun_of(path: str) -> str:
    return path.split("/{id}")[0].rpartition("/")[2]


def routes_with_ids(stage: Stage) -> list[tuple[str, str]]:
    return [(method, path) for method, path in stage.routes if "{id}" in path]


@pytest.mark.hazard(32)
def test_on_no_route_can_anothers_thing_be_told_from_none(stage: Stage) -> None:
    before = everything(stage)
    asked = 0
    for method, path in routes_with_ids(stage):
        noun = noun_of(path)
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
    assert asked >= 40 and everything(stage) == before


Reference = tuple[dict[str, Any], int]


def references(stage: Stage, copies: str | None) -> list[Reference]:
    """Bodies that name a thing of the owner's, and what they are answered."""
    own, things = {"campaign_id": stage.stranger.campaign_id}, stage.things
    missing: list[dict[str, Any]] = [{"campaign_id": things["campaigns"], "prompt": "x"}]
    for name, id in (("asset_id", "assets"), ("image_id", "images"), ("video_id", "videos"), ("image_id", "queued")):
        missing.append({**own, "prompt": "x", name: things[id]})
        missing += [{**own, name: things[id]}] if copies == "copies" else []  # OpenAI's always have a prompt
        missing += [{**own, "prompt": "x", name: things[id], copies: 2}] if copies else []
    return [(body, 404) for body in missing] + [({**own, "prompt": "x", "client_id": things["clients"]}, 422)]


def references_of_videos(stage: Stage) -> list[Reference]:
    """Those that only OpenAI's videos have."""
    wanted = {"campaign_id": stage.stranger.campaign_id, "prompt": "x"}
    more = [{"input_reference": {"file_id": stage.things["assets"]}}]
    more += [{"mode": "pro", "end_image": {"image_id": stage.things["images"]}}]
    return [*references(stage, None), *((wanted | one, 404) for one in more)]


def check_references(stage: Stage, path: str, found: list[Reference]) -> None:
    """Each is answered as if what it names were nobody's, and nothing of the owner's changes."""
    before = everything(stage)
    for body, status in found:
        text = json.dumps(body)
        for id in set(stage.things.values()):
            text = text.replace(id, stage.nobodys())
        theirs, nobodys = stage.ask("POST", path, body), stage.ask("POST", path, json.loads(text))
        assert theirs.status == (400 if (path[:4], status) == ("/v1/", 422) else status), (path, body, theirs.body)
        assert problem(theirs) == problem(nobodys), (path, body)
        assert CANARY not in theirs.body.decode()
    assert everything(stage) == before


@pytest.mark.hazard(32)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_no_body_reaches_anothers_thing(stage: Stage, kind: str) -> None:
    check_references(stage, f"/api/v2/generate/{kind}", references(stage, "copies"))


@pytest.mark.hazard(32)
def test_no_body_of_openais_reaches_anothers_thing(stage: Stage) -> None:
    check_references(stage, "/v1/images/generations", references(stage, "n"))
    check_references(stage, "/v1/videos", references_of_videos(stage))


@pytest.mark.hazard(32)
def test_no_form_and_no_header_of_openais_reaches_anothers_thing(stage: Stage) -> None:
    before = everything(stage)
    for name, noun in (("campaign_id", "campaigns"), ("asset_id", "assets"), ("input_reference[file_id]", "assets")):
        answers = []
        for id in (stage.things[noun], stage.nobodys()):
            content, headers = fields({"prompt": "x", "campaign_id": stage.stranger.campaign_id} | {name: id})
            answers.append(stage.ask("POST", "/v1/videos", content=content, headers=headers))
        assert [answer.status for answer in answers] == [404, 404], (name, answers[0].body)
        assert problem(answers[0]) == problem(answers[1]), name
    for path in ("/v1/videos", "/v1/images/generations"):
        answers = [
            stage.ask("POST", path, {"prompt": "x"}, headers={"X-Campaign-Id": id})
            for id in (stage.things["campaigns"], stage.nobodys())
        ]
        assert [answer.status for answer in answers] == [404, 404] and problem(answers[0]) == problem(answers[1])
    assert everything(stage) == before


def fields(values: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """A multipart body of texts alone, and its headers."""
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{values[name]}\r\n' for name in values]
    return "".join([*parts, "--b--\r\n"]).encode(), {"Content-Type": "multipart/form-data; boundary=b"}


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
    ids, asked = set(stage.things.values()), set()
    for (method, path), made in stage.routes.items():
        spelled = path.replace("{id}", stage.owns.get(noun_of(path), "{id}"))
        if method != "get" or "{" in spelled or not spelled.startswith(("/api/v2/", "/v1/")):
            continue
        names = [one["name"] for one in made["parameters"] if one["in"] == "query"]
        filters = [name for name in names if name.endswith("_id") or name == "after"]
        tries = [(f"{name}={id}", f"{name}={stage.nobodys()}") for name in filters for id in ids]
        tries += [(one, one) for one in ("limit=100", f"q={CANARY}") if one.partition("=")[0] in names]
        tries += [(f"last_event_id={floor_id(0)}",) * 2] if "last_event_id" in names else [("", "")]
        for query, nobodys in tries:
            answer, other = (stage.ask(method, f"{spelled}?{one}") for one in (query, nobodys))
            # A stream begins with the id it goes on from, which is the caller's own word.
            text = answer.body.decode().removeprefix(f"id: {query.rpartition('=')[2]}\n")
            assert answer.status == other.status and answer.status in (200, 403, 404), (spelled, query, text)
            assert answer.status == 200 or problem(answer) == problem(other), (spelled, query)
            assert CANARY not in text and not any(id in text for id in ids), (spelled, query)
            asked.add((path, query))
    assert len({path for path, _ in asked}) >= 18 and len(asked) > 150


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
        spelled = path.replace("{id}", stage.things.get(noun_of(path), stage.nobodys())).replace("{which}", "last")
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
    if path.endswith(("/cancel", "/retry", "/rotate", "/test", "/replay")):
        return {}
    if "/generate/" in path or path.startswith("/v1/"):
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
        spelled = path.replace("{id}", stage.things.get(noun_of(path), ""))
        whose = "?client_id=" + stage.stranger.client_id if path.endswith("/assets") else ""
        for name, value in FOREIGN.items():
            if name == "url" and noun_of(path) == "webhook-endpoints" and "/{id}/" not in path:
                continue  # that one is the client's to set
            body = {**right_body(stage, path), name: value}
            answer = stage.ask(method, spelled + whose, body, key=stage.service.admin)
            assert answer.status == (400 if path.startswith("/v1/") else 422), (method, path, name)
            assert name in wrong_fields(answer), (method, path, answer.body)
        taking += 1
    assert taking >= 15 and everything(stage) == before


@pytest.mark.hazard(33)
def test_nor_by_a_form(stage: Stage) -> None:
    before = everything(stage)
    for name, value in FOREIGN.items():
        content, headers = fields({**right_body(stage, "/v1/"), name: str(value)})
        answer = stage.ask("POST", "/v1/videos", content=content, headers=headers)
        assert (answer.status, wrong_fields(answer)) == (400, [name]), answer.body
    assert everything(stage) == before


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
