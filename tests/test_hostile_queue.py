"""One client that asks for more than can be made: it is stopped in time, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from api_service import Service, Tenant, running
from emulating import Provider
from workshop import ME, Workshop, working

from backend.config import Settings
from backend.core.generation import Generation
from backend.core.people import Caller
from backend.core.requests import ImageRequest
from backend.db import generations
from backend.db.connection import Tx
from backend.manage.backlog import AGAIN_AFTER_S
from backend.steps import queue, request
from backend.upkeep import readiness
from backend.worker import LEASE_MS

MOST = 10


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("queue"), max_unfinished_per_client=MOST) as found:
        yield found


def statuses(service: Service, who: Tenant, count: int, kind: str = "image", **more: object) -> list[int]:
    wanted = {"campaign_id": who.campaign_id, "prompt": "a fox", **more}
    return [service.ask("POST", f"/api/v2/generate/{kind}", wanted, key=who.key).status for _ in range(count)]


@pytest.mark.hazard(52)
def test_a_client_may_have_so_many_unfinished_and_no_more(service: Service) -> None:
    who, other = service.tenant(), service.tenant()
    assert statuses(service, who, MOST + 3) == [202] * MOST + [429] * 3
    refused = service.ask(
        "POST", "/api/v2/generate/image", {"campaign_id": who.campaign_id, "prompt": "x"}, key=who.key
    )
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("too_many_unfinished", str(AGAIN_AFTER_S))
    assert len(service.ask("GET", "/api/v2/generations?limit=100", key=who.key).json()["items"]) == MOST
    assert statuses(service, other, 1) == [202]  # another client is not concerned
    second, _ = service.key(who.client_id)  # and another key of the same client is no way round
    answer = service.ask("POST", "/api/v2/generate/image", {"campaign_id": who.campaign_id, "prompt": "x"}, key=second)
    assert answer.status == 429
    answer = service.ask("POST", "/api/v2/generate/image", {"campaign_id": who.campaign_id, "prompt": "x"})
    assert answer.status == 429  # nor is an admin's: the queue is the client's


@pytest.mark.hazard(52)
def test_copies_and_start_images_are_counted_and_accepted_all_or_none(service: Service) -> None:
    who = service.tenant()
    assert statuses(service, who, 2, copies=4) == [202, 202]
    assert statuses(service, who, 1, copies=3) == [429]
    assert statuses(service, who, 1, kind="video") == [202]  # with its start image that makes ten
    assert statuses(service, who, 1) == [429]
    assert len(service.ask("GET", "/api/v2/generations?limit=100", key=who.key).json()["items"]) == MOST


@pytest.mark.hazard(52)
def test_what_ends_makes_room_and_a_retry_needs_it_too(service: Service) -> None:
    who = service.tenant()
    made = [service.generate(who)["id"] for _ in range(MOST)]
    assert statuses(service, who, 1) == [429]
    service.ask("POST", f"/api/v2/generations/{made[0]}/cancel", {}, key=who.key)
    assert service.ask("POST", f"/api/v2/generations/{made[0]}/retry", {}, key=who.key).status == 202
    again = service.ask("POST", f"/api/v2/generations/{made[0]}/retry", {}, key=who.key)
    assert (again.status, again.json()["code"]) == (429, "too_many_unfinished")
    for id in made[1:4]:
        service.failed(id)
    assert statuses(service, who, 5) == [202] * 3 + [429] * 2


@pytest.mark.hazard(52)
def test_many_requests_at_once_do_not_slip_past_the_count(service: Service) -> None:
    who = service.tenant()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: statuses(service, who, 1)[0], range(3 * MOST)))
    assert sorted(found) == [202] * MOST + [429] * 2 * MOST


@pytest.mark.hazard(52)
def test_a_request_sent_again_is_answered_though_there_is_no_room_any_more(service: Service) -> None:
    who = service.tenant()
    wanted, named = {"campaign_id": who.campaign_id, "prompt": "x"}, {"Idempotency-Key": "first"}
    first = service.ask("POST", "/api/v2/generate/image", wanted, key=who.key, headers=named)
    assert statuses(service, who, MOST) == [202] * (MOST - 1) + [429]
    again = service.ask("POST", "/api/v2/generate/image", wanted, key=who.key, headers=named)
    assert (again.status, again.json()["id"]) == (202, first.json()["id"])
    refused = {"Idempotency-Key": "refused"}
    for _ in range(2):
        assert service.ask("POST", "/api/v2/generate/image", wanted, key=who.key, headers=refused).status == 429


def test_a_client_at_the_default_limits_reaches_the_cap_after_hours() -> None:
    settings = Settings(_env_file=None)
    copies, an_hour = 4, 60
    assert settings.image_rate_limit == "10/minute"
    assert settings.max_unfinished_per_client / (10 * copies * an_hour) > 4


def _flood(bench: Workshop, campaign_id: str, count: int) -> None:
    """So many queued rows of one campaign, written as requests write them."""
    wanted = ImageRequest(campaign_id=campaign_id, prompt="flood", copies=4)
    caller = Caller("dev", None, admin=True)

    async def fill() -> None:
        for _ in range(count // 400):

            async def work(tx: Tx) -> list[Generation]:
                return [row for _ in range(100) for row in await request.accept(tx, bench.ctx, caller, "image", wanted)]

            await bench.ctx.db.write(work)

    bench.run(fill())


def _waits(bench: Workshop, campaign_id: str, asked: int) -> list[float]:
    """For each request of this campaign, how many rounds of the worker it waited until it was sent."""
    waits = []
    for number in range(asked):
        id, rounds = bench.ask(prompt=f"alone {number}", campaign_id=campaign_id)["id"], 0
        while bench.row(id).status == "queued":
            rounds += 1
            rows = bench.run(queue.claim(bench.ctx, ME, ("image", "video"), 8, LEASE_MS))
            bench.run(_finish(bench, rows))
        waits.append(rounds)
    return waits


async def _finish(bench: Workshop, rows: list[Generation]) -> None:
    """As if the provider had refused them at once: their places are free again."""
    await asyncio.gather(
        *(bench.ctx.db.write(lambda tx, id=row.id: _fail(tx, id, bench.ctx.now())) for row in rows),
    )


async def _fail(tx: Tx, id: str, now: int) -> None:
    await generations.move(tx, id, "canceled", now=now)


@pytest.mark.hazard(52)
@pytest.mark.timeout(110)
def test_five_thousand_queued_by_one_client_change_nothing_for_another(tmp_path: Path, provider: Provider) -> None:
    with working(tmp_path, provider, worker=False, max_in_flight=8) as bench:
        many, one = (bench.campaign(name, bench.client(name)) for name in ("many", "one"))
        alone = _waits(bench, one, 15)
        _flood(bench, many, 5200)
        beside = _waits(bench, one, 15)
        left = bench.run(readiness.workload(bench.ctx)).unfinished["queued"]
        assert left >= 5000
        assert statistics.median(beside) == statistics.median(alone) == 1
        assert max(beside) == 1, "it is in the next claim, however many wait before it"
        bench.finished = False
    assert not provider.ledger["creates"]


@pytest.mark.hazard(52)
def test_a_long_queue_that_moves_is_no_reason_to_be_taken_out_of_service(tmp_path: Path, provider: Provider) -> None:
    """Else one client with a key could make every instance unready."""
    with working(tmp_path, provider, worker=False, max_in_flight=4) as bench:
        bench.ask_many(12)
        bench.run(queue.claim(bench.ctx, ME, ("image", "video"), 4, 3_600_000))
        bench.clock.forward(600)
        assert bench.run(readiness.readiness(bench.ctx))["queue"]["ok"]
        load = bench.run(readiness.workload(bench.ctx))
        assert load.late_s >= 600 and load.stuck_s == 0
        bench.finished = False


@pytest.mark.hazard(52)
def test_a_queue_that_nobody_takes_from_is_one(tmp_path: Path, provider: Provider) -> None:
    with working(tmp_path, provider, worker=False, max_in_flight=4) as bench:
        bench.ask_many(2)
        bench.clock.forward(600)
        assert not bench.run(readiness.readiness(bench.ctx))["queue"]["ok"]
        bench.finished = False


@pytest.mark.hazard(51)
@pytest.mark.parametrize(
    "url",
    ["https://media.example.com/x", "https://MEDIA.example.com:443/", "https://in.example.com:8443/webhooks/a/b/c"],
)
def test_the_service_is_never_told_by_itself(tmp_path: Path, url: str) -> None:
    own = {"base_url": "https://media.example.com", "ngrok_url": "https://in.example.com:8443"}
    with running(tmp_path, **own) as service:
        who = service.tenant()
        wanted = {"campaign_id": who.campaign_id, "prompt": "x", "webhook_url": url}
        answer = service.ask("POST", "/api/v2/generate/image", wanted, key=who.key)
        assert (answer.status, [one["field"] for one in answer.json()["errors"]]) == (422, ["webhook_url"])
        elsewhere = wanted | {"webhook_url": "https://other.example.com/x"}
        assert service.ask("POST", "/api/v2/generate/image", elsewhere, key=who.key).status == 202
