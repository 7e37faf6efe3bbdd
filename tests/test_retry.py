"""One retry is one tree: each that failed is made anew once, and all of it is admitted before the first row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, Tenant, png, running
from webserving import Answer

from backend.core.errors import Conflict
from backend.core.generation import Kind
from backend.core.people import Caller
from backend.steps import retry as step
from backend.steps.retry import MOST

pytestmark = pytest.mark.hazard(55)
IMAGE_USD, PRO_USD = 0.039, 0.45


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as found:
        yield found


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def retry(service: Service, who: Tenant, id: str, key: str | None = None, **headers: str) -> Answer:
    return service.ask("POST", f"/api/v2/generations/{id}/retry", {}, key=key or who.key, headers=headers)


def show(service: Service, who: Tenant, id: str) -> dict[str, Any]:
    return service.ask("GET", f"/api/v2/generations/{id}", key=who.key).json()


def rows(service: Service) -> int:
    found = service.run(service.ctx.db.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM generations")))
    assert found is not None
    return int(found["n"])


def money(service: Service, who: Tenant, campaign_id: str | None = None) -> tuple[float, float]:
    found = service.ask("GET", f"/api/v2/campaigns/{campaign_id or who.campaign_id}", key=who.key).json()
    return found["spent_usd"], found["reserved_usd"]


def films(service: Service, who: Tenant, number: int) -> list[str]:
    """Films that each start and end on the one before, the first on an image. All fail with that."""
    made = [str(service.generate(who)["id"])]
    for _ in range(number):
        source = {"image_id" if len(made) == 1 else "video_id": made[-1]}
        made.append(service.generate(who, "video", **source, end_image=source, mode="pro")["id"])
    service.failed(made[0])
    return made


def test_a_chain_that_uses_each_source_twice_is_made_anew_once(service: Service, who: Tenant) -> None:
    old = films(service, who, 10)
    assert {show(service, who, id)["status"] for id in old} == {"failed"}
    answer = retry(service, who, old[-1])
    assert answer.status == 202 and rows(service) == 2 * len(old)
    assert money(service, who) == (0, round(10 * PRO_USD + IMAGE_USD, 6))
    new, named = answer.json(), [old[-1]]
    while source := new["source"]:
        (before,) = {source[name] for name in ("image_id", "video_id") if name in source}
        assert before in source["end_image"].values() and new["stage"] == "waiting"
        new = show(service, who, before)
        named.append(new["retry_of"])
    assert sorted(named) == sorted(old) and new["stage"] == "queued"


def test_one_failed_image_as_start_and_end_is_made_anew_once(service: Service, who: Tenant) -> None:
    image, film = films(service, who, 1)
    new = retry(service, who, film).json()
    assert new["source"]["image_id"] == new["source"]["end_image"]["image_id"] != image
    assert rows(service) == 4


def test_a_diamond_is_made_anew_once(service: Service, who: Tenant) -> None:
    image = service.generate(who)["id"]
    left = service.generate(who, "image", image_id=image)["id"]
    right = service.generate(who, "image", image_id=left)["id"]  # so the shorter way to it is looked at first
    both = service.generate(who, "video", image_id=left, end_image={"image_id": right}, mode="pro")["id"]
    service.failed(image)
    new = retry(service, who, both).json()
    ends = [show(service, who, id) for id in (new["source"]["image_id"], new["source"]["end_image"]["image_id"])]
    assert [one["retry_of"] for one in ends] == [left, right] and rows(service) == 4 + 4
    assert ends[1]["source"] == {"image_id": ends[0]["id"]}
    service.completed(ends[0]["source"]["image_id"], png())
    assert [show(service, who, one["id"])["stage"] for one in ends] == ["queued", "waiting"]


def test_a_source_that_is_unfinished_or_there_is_used_as_it_is(service: Service, who: Tenant) -> None:
    start, end = service.generate(who)["id"], service.generate(who)["id"]
    film = service.generate(who, "video", image_id=start, end_image={"image_id": end}, mode="pro")["id"]
    service.completed(start, png())
    service.failed(film)
    new = retry(service, who, film).json()
    assert (new["source"]["image_id"], new["source"]["end_image"]["image_id"]) == (start, end)
    assert new["stage"] == "waiting" and rows(service) == 4
    service.completed(end, png())
    assert show(service, who, new["id"])["stage"] == "queued"


def test_more_than_fifty_is_refused_before_anything_is_written(service: Service, who: Tenant) -> None:
    old = films(service, who, MOST)
    refused = retry(service, who, old[-1])
    assert (refused.status, refused.json()["code"]) == (409, "retry_too_large")
    assert rows(service) == len(old) and money(service, who) == (0, 0)
    assert retry(service, who, old[-2]).status == 202 and rows(service) == len(old) + MOST


def test_a_budget_that_does_not_reach_for_all_of_it_admits_nothing(service: Service, who: Tenant) -> None:
    old = films(service, who, 3)
    cost = round(3 * PRO_USD + IMAGE_USD, 6)
    for path in (f"/api/v2/campaigns/{who.campaign_id}", f"/api/v2/clients/{who.client_id}"):
        service.ask("PATCH", path, {"budget_usd": round(cost - 0.000001, 6)})
        refused = retry(service, who, old[-1])
        assert (refused.status, refused.json()["code"]) == (402, "budget_exceeded")
        assert f"this may cost ${cost}" in refused.json()["detail"]
        assert rows(service) == len(old) and money(service, who) == (0, 0)
        service.ask("PATCH", path, {"budget_usd": cost})
    assert retry(service, who, old[-1]).status == 202 and money(service, who) == (0, cost)


def test_each_campaign_pays_for_its_own_and_the_client_for_all(service: Service, who: Tenant) -> None:
    other = service.ask("POST", "/api/v2/campaigns", {"name": "other"}, key=who.key).json()["id"]
    image = service.generate(who, campaign_id=other)["id"]
    film = service.generate(who, "video", image_id=image)["id"]
    service.failed(image)
    limits = [(f"campaigns/{other}", IMAGE_USD), (f"campaigns/{who.campaign_id}", 0.25)]
    for path, usd in [*limits, (f"clients/{who.client_id}", 0.289)]:
        service.ask("PATCH", f"/api/v2/{path}", {"budget_usd": round(usd - 0.000001, 6)})
        assert retry(service, who, film).status == 402 and rows(service) == 2
        service.ask("PATCH", f"/api/v2/{path}", {"budget_usd": usd})
    assert retry(service, who, film).status == 202
    assert (money(service, who), money(service, who, other)) == ((0, 0.25), (0, IMAGE_USD))


def test_each_new_generation_counts_for_the_rate_limit_of_its_kind(service: Service, who: Tenant) -> None:
    old = films(service, who, 7)
    key, _ = service.key(who.client_id, video_limit="10/hour", image_limit="2/hour")
    first = retry(service, who, old[-1], key)
    assert (first.status, first.headers["ratelimit-limit"], first.headers["ratelimit-remaining"]) == (202, "10", "3")
    refused = retry(service, who, old[-1], key)
    assert (refused.status, refused.json()["code"]) == (429, "rate_limited")
    assert "this makes 7" in refused.json()["detail"] and rows(service) == 2 * len(old)
    assert retry(service, who, old[0], key).headers["ratelimit-remaining"] == "0"
    assert retry(service, who, old[0], key).status == 429


def test_the_images_it_makes_on_the_way_count_too(service: Service, who: Tenant) -> None:
    old = films(service, who, 1)
    key, _ = service.key(who.client_id, video_limit="100/hour", image_limit="1/hour")
    assert [retry(service, who, old[-1], key).status for _ in range(2)] == [202, 429]


def test_unfinished_generations_are_counted_before_the_first_is_written(tmp_path: Path) -> None:
    with running(tmp_path, max_unfinished_per_client=8) as service:
        who = service.tenant()
        old = films(service, who, 7)
        service.generate(who)
        refused = retry(service, who, old[-1])
        assert (refused.status, refused.json()["code"]) == (429, "too_many_unfinished")
        assert rows(service) == len(old) + 1 and money(service, who) == (0, IMAGE_USD)
        assert retry(service, who, old[-2]).status == 202


def test_the_same_retry_again_is_the_same_answer_and_makes_nothing(service: Service, who: Tenant) -> None:
    old = films(service, who, 7)
    key, _ = service.key(who.client_id, video_limit="10/hour")
    name = {"Idempotency-Key": "once"}
    first, again = (retry(service, who, old[-1], key, **name) for _ in range(2))
    assert again.body == first.body and again.headers["idempotent-replayed"] == "true"
    assert again.headers["ratelimit-remaining"] == "2" and rows(service) == 2 * len(old)


def test_the_same_retry_is_the_same_answer_when_the_old_generation_is_gone(service: Service, who: Tenant) -> None:
    old = service.generate(who)["id"]
    service.ask("POST", f"/api/v2/generations/{old}/cancel", {}, key=who.key)
    once = {"Idempotency-Key": "once"}
    first = retry(service, who, old, **once)
    assert service.ask("DELETE", f"/api/v2/generations/{old}", key=who.key).status == 204
    again = retry(service, who, old, **once)
    assert (again.status, again.body) == (202, first.body) and first.status == 202
    assert retry(service, who, old, **{"Idempotency-Key": "another"}).status == 404


def test_what_fails_after_it_was_counted_is_not_made(service: Service, who: Tenant) -> None:
    old = films(service, who, 2)
    caller, counted = Caller(who.key_id, who.client_id), Counter[Kind]({"video": 1, "image": 1})
    with pytest.raises(Conflict):
        service.run(service.ctx.db.write(lambda tx: step.retry(tx, service.ctx, caller, old[-1], counted)))
    assert rows(service) == len(old)


def test_copies_of_a_video_share_a_start_image_and_are_admitted_with_it(service: Service, who: Tenant) -> None:
    wanted = {"campaign_id": who.campaign_id, "prompt": "kites", "copies": 4}
    cost, path = round(4 * 0.25 + IMAGE_USD, 6), f"/api/v2/campaigns/{who.campaign_id}"
    service.ask("PATCH", path, {"budget_usd": round(cost - 0.000001, 6)})
    assert service.ask("POST", "/api/v2/generate/video", wanted, key=who.key).status == 402 and rows(service) == 0
    service.ask("PATCH", path, {"budget_usd": cost})
    made = service.ask("POST", "/api/v2/generate/video", wanted, key=who.key).json()["items"]
    assert len({one["source"]["image_id"] for one in made}) == 1 and rows(service) == 5
    service.failed(made[0]["source"]["image_id"])
    assert retry(service, who, made[0]["id"]).status == 202 and rows(service) == 7
