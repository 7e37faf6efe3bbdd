"""Generations over HTTP: asked for, shown, canceled, retried, deleted, and never made twice."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from api_service import Service, Tenant, png, running
from webserving import Answer

from backend.manage import idempotency
from backend.manage.idempotency import Idempotency

NOBODY = "019abcde-0000-7000-8000-00000000000a"
NANO, KLING = "google/nano-banana", "kwaivgi/kling-v2.1"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("generations")) as found:
        yield found


@pytest.fixture(scope="module")
def who(service: Service) -> Tenant:
    return service.tenant()


def ask(service: Service, who: Tenant, kind: str = "image", headers: Any = None, **wanted: Any) -> Answer:
    body = {"campaign_id": who.campaign_id, "prompt": "a fox"} | wanted
    body = {name: value for name, value in body.items() if value is not ...}
    return service.ask("POST", f"/api/v2/generate/{kind}", body, key=who.key, headers=headers)


def show(service: Service, who: Tenant, id: str) -> dict[str, Any]:
    answer = service.ask("GET", f"/api/v2/generations/{id}", key=who.key)
    assert answer.status == 200
    return answer.json()


def test_an_accepted_image_is_shown_whole_from_the_first_moment(service: Service, who: Tenant) -> None:
    answer = ask(service, who, metadata={"order": "7", "Ä": ""}, aspect_ratio="4:5", seed=7)
    made = answer.json()
    assert answer.status == 202
    assert answer.headers["location"] == f"/api/v2/generations/{made['id']}"
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "retry-after" not in answer.headers
    assert made == {
        "id": made["id"],
        "kind": "image",
        "status": "pending",
        "stage": "queued",
        "progress": None,
        "client_id": who.client_id,
        "campaign_id": who.campaign_id,
        "batch_id": None,
        "retry_of": None,
        "provider": "replicate",
        "model": NANO,
        "prompt": "a fox",
        "source": {},
        "params": {"aspect_ratio": "4:5", "seed": 7},
        "url": None,
        "poster_url": None,
        "content_type": None,
        "bytes": None,
        "sha256": None,
        "width": None,
        "height": None,
        "duration_s": None,
        "cost_usd": {"estimated": 0.039, "actual": None},
        "error": None,
        "metadata": {"order": "7", "Ä": ""},
        "possibly_charged": False,
        "media": made["media"],
        "files": [],
        "created_at": made["created_at"],
        "submitted_at": None,
        "completed_at": None,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["created_at"])
    assert made["id"][14] == "7" and show(service, who, made["id"]) == made


def test_a_completed_one_has_its_url_and_what_its_bytes_are(service: Service, who: Tenant) -> None:
    made, content = service.generate(who)["id"], png((64, 48))
    service.completed(made, content, png(kind="JPEG"))
    shown = show(service, who, made)
    assert (shown["status"], shown["stage"], shown["error"]) == ("completed", "completed", None)
    assert (shown["content_type"], shown["bytes"], shown["width"], shown["height"]) == (
        "image/png",
        len(content),
        64,
        48,
    )
    assert shown["cost_usd"] == {"estimated": 0.039, "actual": 0.039}
    assert datetime.fromisoformat(shown["completed_at"]) >= datetime.fromisoformat(shown["submitted_at"])
    for url in (shown["url"], shown["poster_url"]):
        assert url.startswith(f"http://localhost:{service.port}/api/v2/images/{made}/")
        assert service.ask("GET", url[url.index("/api") :], key="").status == 200
    assert service.ask("GET", f"/api/v2/images/{made}", key=who.key).json() == shown
    assert service.ask("GET", f"/api/v2/videos/{made}", key=who.key).status == 404


def test_a_failed_one_says_why_and_has_no_url(service: Service, who: Tenant) -> None:
    made = service.generate(who)["id"]
    service.failed(made)
    shown = show(service, who, made)
    assert (shown["status"], shown["url"]) == ("failed", None)
    assert shown["error"] == {"code": "provider_failed", "message": "It broke.", "retryable": True}


def test_copies_are_a_batch_of_their_own(service: Service, who: Tenant) -> None:
    answer = ask(service, who, copies=3)
    items = answer.json()["items"]
    assert set(answer.json()) == {"items"} and len({one["id"] for one in items}) == 3
    assert len({one["batch_id"] for one in items}) == 1 and items[0]["batch_id"]
    listed = service.ask("GET", f"/api/v2/generations?batch_id={items[0]['batch_id']}", key=who.key).json()
    assert [one["id"] for one in listed["items"]] == [one["id"] for one in reversed(items)]
    assert [one["batch_id"] for one in ask(service, who, copies=1).json()["items"]] != [None]


def test_a_video_of_a_prompt_alone_waits_for_a_start_image_of_its_own(service: Service, who: Tenant) -> None:
    made = ask(service, who, "video", duration=10, mode="pro", negative_prompt="rain").json()
    assert (made["kind"], made["status"], made["stage"], made["model"]) == ("video", "pending", "waiting", KLING)
    assert made["params"] == {"duration": 10, "mode": "pro", "negative_prompt": "rain"}
    assert made["cost_usd"]["estimated"] == 0.9
    start = show(service, who, made["source"]["image_id"])
    assert (start["kind"], start["stage"], start["model"]) == ("image", "queued", NANO)
    assert (start["prompt"], start["campaign_id"]) == ("a fox", who.campaign_id)
    service.failed(start["id"])
    failed = show(service, who, made["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "source_failed")


def test_the_copies_of_a_video_share_one_start_image(service: Service, who: Tenant) -> None:
    items = ask(service, who, "video", copies=2).json()["items"]
    assert len({one["source"]["image_id"] for one in items}) == 1
    service.completed(items[0]["source"]["image_id"], png())
    assert [show(service, who, one["id"])["stage"] for one in items] == ["queued", "queued"]


def test_a_resolution_is_the_mode_that_makes_it(service: Service, who: Tenant) -> None:
    image = service.generate(who)["id"]
    made = ask(service, who, "video", image_id=image, resolution="1080p").json()
    assert (made["params"]["mode"], made["source"]) == ("pro", {"image_id": image})


WRONG = [
    ("image", {"prompt": ...}, ""),
    ("image", {"prompt": "  "}, "prompt"),
    ("image", {"prompt": "x" * 10_001}, "prompt"),
    ("image", {"prompt": 5}, "prompt"),
    ("image", {"campaign_id": ...}, "campaign_id"),
    ("image", {"campaign_id": 5}, "campaign_id"),
    ("image", {"copies": 0}, "copies"),
    ("image", {"copies": 5}, "copies"),
    ("image", {"copies": "2"}, "copies"),
    ("image", {"copies": True}, "copies"),
    ("image", {"copies": 1.5}, "copies"),
    ("image", {"seed": -1}, "seed"),
    ("image", {"seed": 1 << 40}, "seed"),
    ("image", {"model": "nobody/knows"}, "model"),
    ("image", {"model": KLING}, "model"),
    ("video", {"model": NANO}, "model"),
    ("image", {"provider": "runway"}, "provider"),
    ("image", {"aspect_ratio": "7:3"}, "aspect_ratio"),
    ("image", {"aspect_ratio": "wide"}, "aspect_ratio"),
    ("image", {"duration": 5}, "duration"),
    ("video", {"duration": 7}, "duration"),
    ("video", {"mode": "turbo"}, "mode"),
    ("video", {"resolution": "4k"}, "resolution"),
    ("video", {"resolution": "720p", "mode": "pro"}, "resolution"),
    ("video", {"end_image": {}}, "end_image"),
    ("video", {"end_image": {"asset_id": NOBODY}}, "end_image"),
    ("video", {"end_image": {"asset_id": NOBODY, "image_id": NOBODY}}, "end_image"),
    ("image", {"frame": "first"}, "frame"),
    ("image", {"frame": "middle", "video_id": NOBODY}, "frame"),
    ("image", {"metadata": {"a": 1}}, "metadata.a"),
    ("image", {"metadata": ["a"]}, "metadata"),
    ("image", {"metadata": {str(n): "" for n in range(51)}}, "metadata"),
    ("image", {"metadata": {"a": "x" * 1001}}, "metadata"),
    ("image", {"webhook_url": "ftp://example.com/x"}, "webhook_url"),
    ("image", {"webhook_url": "not a url"}, "webhook_url"),
    ("image", {"webhook_url": "http://user:password@example.com/"}, "webhook_url"),
    ("image", {"client_id": NOBODY}, "client_id"),
    ("image", {"status": "completed"}, "status"),
    ("image", {"cost_actual_micros": 0}, "cost_actual_micros"),
    ("image", {"provider_id": "x"}, "provider_id"),
    ("image", {"id": NOBODY}, "id"),
    ("image", {"key_id": NOBODY}, "key_id"),
    ("image", {"nonce": "x"}, "nonce"),
    ("image", {"batch_id": "x"}, "batch_id"),
    ("image", {"created_at": "2020-01-01T00:00:00Z"}, "created_at"),
]


@pytest.mark.parametrize(("kind", "wanted", "field"), WRONG, ids=lambda given: str(given)[:40])
def test_what_cannot_be_made_is_refused_by_name_and_leaves_nothing(
    service: Service, who: Tenant, kind: str, wanted: dict[str, Any], field: str
) -> None:
    before = newest(service)
    answer = ask(service, who, kind, **wanted)
    assert answer.status == 422, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id", "errors"}
    assert any(error["field"].startswith(field) for error in problem["errors"])
    assert newest(service) == before


def newest(service: Service) -> str:
    return service.ask("GET", "/api/v2/generations?limit=1").json()["items"][0]["id"]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"campaign_id": NOBODY}, "campaign_not_found"),
        ({"campaign_id": "x"}, "campaign_not_found"),
        ({"asset_id": NOBODY}, "asset_not_found"),
        ({"image_id": NOBODY}, "image_not_found"),
        ({"video_id": "x"}, "video_not_found"),
    ],
)
def test_what_is_not_there_is_404_with_its_name(
    service: Service, who: Tenant, wanted: dict[str, Any], code: str
) -> None:
    answer = ask(service, who, **wanted)
    assert (answer.status, answer.json()["code"]) == (404, code)


def test_a_source_that_failed_or_is_of_another_kind_is_refused(service: Service, who: Tenant) -> None:
    image = service.generate(who)["id"]
    assert ask(service, who, video_id=image).status == 404
    service.failed(image)
    answer = ask(service, who, image_id=image)
    assert (answer.status, answer.json()["code"]) == (422, "source_failed")
    two = {"image_id": service.generate(who)["id"], "asset_id": NOBODY}
    assert ask(service, who, "video", **two).status == 422


def test_canceling_is_at_once_before_it_was_sent_and_a_wish_after(service: Service, who: Tenant) -> None:
    made = service.generate(who)["id"]
    for _ in range(2):
        done = service.ask("POST", f"/api/v2/generations/{made}/cancel", key=who.key)
        assert (done.status, done.json()["status"]) == (200, "canceled")
    sent = service.generate(who)["id"]
    service.submitted(sent)
    asked = service.ask("POST", f"/api/v2/generations/{sent}/cancel", key=who.key)
    assert (asked.status, asked.json()["status"]) == (202, "processing")
    done = service.generate(who)["id"]
    service.completed(done, png())
    refused = service.ask("POST", f"/api/v2/generations/{done}/cancel", key=who.key)
    assert (refused.status, refused.json()["code"]) == (409, "not_cancelable")


def test_a_retry_is_a_new_one_that_names_the_old(service: Service, who: Tenant) -> None:
    old = ask(service, who, seed=9, metadata={"a": "b"}).json()
    path = f"/api/v2/generations/{old['id']}/retry"
    assert service.ask("POST", path, key=who.key).status == 409
    service.failed(old["id"])
    answer = service.ask("POST", path, key=who.key)
    new = answer.json()
    assert (answer.status, answer.headers["location"]) == (202, f"/api/v2/generations/{new['id']}")
    same = ("kind", "campaign_id", "model", "prompt", "params", "metadata", "source")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    assert (new["retry_of"], new["status"], new["error"]) == (old["id"], "pending", None)
    assert show(service, who, old["id"])["status"] == "failed"


def test_a_retried_video_retries_the_start_image_that_failed_it(service: Service, who: Tenant) -> None:
    video = ask(service, who, "video").json()
    service.failed(video["source"]["image_id"])
    again = service.ask("POST", f"/api/v2/generations/{video['id']}/retry", key=who.key).json()
    assert again["stage"] == "waiting" and again["source"] != video["source"]
    assert show(service, who, again["source"]["image_id"])["retry_of"] == video["source"]["image_id"]


def test_only_what_is_finished_and_not_needed_can_be_deleted(service: Service, who: Tenant) -> None:
    image = service.generate(who)["id"]
    path = f"/api/v2/generations/{image}"
    assert service.ask("DELETE", path, key=who.key).json()["code"] == "unfinished"
    service.completed(image, png())
    needs = ask(service, who, "video", image_id=image).json()["id"]
    assert service.ask("DELETE", path, key=who.key).json()["code"] == "in_use"
    assert service.ask("POST", f"/api/v2/generations/{needs}/cancel", key=who.key).status == 200
    deleted = service.ask("DELETE", path, key=who.key)
    assert (deleted.status, deleted.body) == (204, b"")
    assert service.ask("DELETE", path, key=who.key).status == 404
    assert service.ask("GET", f"/api/v2/images/{image}/data", key=who.key).status == 404


def test_the_same_key_and_body_give_the_same_answer(service: Service, who: Tenant) -> None:
    headers = {"Idempotency-Key": "same answer"}
    first = ask(service, who, "video", headers, copies=2)
    again = ask(service, who, "video", headers, copies=2)
    assert "idempotent-replayed" not in first.headers and again.headers["idempotent-replayed"] == "true"
    assert (again.status, again.body, again.headers["location"]) == (202, first.body, first.headers["location"])
    for other in ({"copies": 2, "prompt": "a wolf"}, {"copies": 3}):
        refused = ask(service, who, "video", headers, **other)
        assert (refused.status, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert ask(service, who, "image", headers, copies=2).status == 422


def test_what_was_refused_is_not_kept_under_its_key(service: Service, who: Tenant) -> None:
    headers = {"Idempotency-Key": "second thoughts"}
    assert ask(service, who, headers=headers, copies=9).status == 422
    assert ask(service, who, headers=headers, image_id=NOBODY).status == 404
    assert ask(service, who, headers=headers).status == 202


def test_twenty_at_once_with_one_key_make_one_row(service: Service, who: Tenant) -> None:
    barrier = threading.Barrier(20)

    def one(_: int) -> Answer:
        barrier.wait()
        return ask(service, who, headers={"Idempotency-Key": "at once"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(20)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


def test_a_retry_and_a_cancel_are_repeated_too(service: Service, who: Tenant) -> None:
    made = service.generate(who)["id"]
    for verb in ("cancel", "retry"):
        path, headers = f"/api/v2/generations/{made}/{verb}", {"Idempotency-Key": f"{verb} it"}
        first, again = (service.ask("POST", path, key=who.key, headers=headers) for _ in range(2))
        assert first.body == again.body and again.headers["idempotent-replayed"] == "true"


def test_while_the_first_request_runs_its_key_is_409(service: Service, who: Tenant) -> None:
    name = Idempotency(f"client:{who.client_id}", "slow", "hash")
    service.run(idempotency.begin(service.ctx, name))
    answer = ask(service, who, headers={"Idempotency-Key": "slow"})
    assert answer.status == 422  # another body: that is said first
    with pytest.raises(Exception, match="still running"):
        service.run(idempotency.begin(service.ctx, name))
    service.run(idempotency.abandon(service.ctx, name))
    assert ask(service, who, headers={"Idempotency-Key": "slow"}).status == 202


def test_a_full_disk_accepts_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("full"), min_free_mb=10**7) as full:
        who = full.tenant()
        answer = ask(full, who)
        assert (answer.status, answer.json()["code"]) == (507, "out_of_space")
        assert int(answer.headers["retry-after"]) > 0
        refused = full.ask("POST", "/api/v2/assets", {"url": "http://example.com/a.png"}, key=who.key)
        assert refused.status == 507
        assert full.ask("GET", "/api/v2/generations", key=who.key).json()["items"] == []


@pytest.mark.parametrize("route", ["cancel", "retry"])
def test_a_post_that_says_all_in_its_path_takes_no_fields(service: Service, who: Tenant, route: str) -> None:
    made = ask(service, who).json()
    path = f"/api/v2/generations/{made['id']}/{route}"
    refused = service.ask("POST", path, {"status": "completed"}, key=who.key, headers={"Idempotency-Key": route})
    assert (refused.status, refused.json()["errors"][0]["field"]) == (422, "status")
    assert show(service, who, made["id"])["status"] == "pending"
    if route == "cancel":
        first = service.ask("POST", path, {}, key=who.key, headers={"Idempotency-Key": route})
        again = service.ask("POST", path, key=who.key, headers={"Idempotency-Key": route})
        assert (first.status, again.status, again.headers["idempotent-replayed"]) == (200, 200, "true")
