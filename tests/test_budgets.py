"""Budgets: what is accepted is reserved, what has ended is settled, nothing beyond is accepted, however many ask."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from api_service import Service, Tenant, png, running
from auditor import of_money
from emulating import Provider
from postgresql import SERVER, PostgresTx, postgres
from test_parity import made
from webserving import Answer
from workshop import Workshop, working

from backend.core.errors import BudgetExceeded
from backend.core.generation import SUBMITTING, UNCLEAR, Failure
from backend.core.models import Model
from backend.core.people import Campaign, Client
from backend.core.prices import Rule
from backend.db import campaigns, clients, feed, generations
from backend.db.feed import Topic
from backend.db.versions import schema_file
from backend.upkeep import tidy

IMAGE_USD, VIDEO_USD = 0.039, 0.289  # a video of a prompt has its start image made as well


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as found:
        yield found
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.row_factory = sqlite3.Row
        assert list(of_money(connection)) == []


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def give(service: Service, who: Tenant, budget: Any, *, to: str = "campaign") -> Answer:
    id = who.campaign_id if to == "campaign" else who.client_id
    return service.ask("PATCH", f"/api/v2/{to}s/{id}", {"budget_usd": budget})


def money(service: Service, who: Tenant, of: str = "campaign") -> tuple[float | None, float, float]:
    """Budget, spent and reserved as they are shown."""
    id = who.campaign_id if of == "campaign" else who.client_id
    shown = service.ask("GET", f"/api/v2/{of}s/{id}", key=who.key).json()
    return shown["budget_usd"], shown["spent_usd"], shown["reserved_usd"]


def ask(service: Service, who: Tenant, kind: str = "image", **more: Any) -> Answer:
    headers = more.pop("headers", {})
    wanted = {"campaign_id": who.campaign_id, "prompt": "a fox", **more}
    return service.ask("POST", f"/api/v2/generate/{kind}", wanted, key=who.key, headers=headers)


def at_once(count: int, request: Callable[[], Answer]) -> Counter[int]:
    with ThreadPoolExecutor(count) as threads:
        return Counter(answer.status for answer in threads.map(lambda _: request(), range(count)))


def content(service: Service, table: str) -> list[Any]:
    rows = service.run(service.ctx.db.read(lambda tx: tx.all(f"SELECT * FROM {table}")))  # noqa: S608
    return [tuple(row) for row in rows]


def warnings(service: Service) -> list[dict[str, Any]]:
    told = service.run(service.ctx.db.read(lambda tx: feed.page(tx, Topic(), "", 1000)))
    return [one.subject for one, _ in told if one.type == "budget.warning" and one.subject]


@pytest.mark.parametrize("to", ["campaign", "client"])
@pytest.mark.parametrize(("kind", "usd", "rows"), [("image", IMAGE_USD, 10), ("video", VIDEO_USD, 20)])
def test_fifty_requests_at_once_against_a_budget_for_ten_give_exactly_ten(
    service: Service, who: Tenant, to: str, kind: str, usd: float, rows: int
) -> None:
    assert give(service, who, round(usd * 10, 6), to=to).status == 200
    assert at_once(50, lambda: ask(service, who, kind)) == {202: 10, 402: 40}
    assert len(content(service, "generations")) == rows
    assert money(service, who, to) == (round(usd * 10, 6), 0, round(usd * 10, 6))


def test_copies_are_accepted_together_or_not_at_all(service: Service, who: Tenant) -> None:
    give(service, who, round(IMAGE_USD * 10, 6))
    assert at_once(50, lambda: ask(service, who, copies=4)) == {202: 2, 402: 48}
    assert len(content(service, "generations")) == 8
    assert [ask(service, who, copies=2).status, ask(service, who).status] == [202, 402]


async def test_on_postgresql_too_with_a_connection_for_each() -> None:
    async with postgres() as first:
        (own,) = await first.fetchrow("SELECT current_schema()")
        await first.execute(schema_file().read_text("utf-8"))
        tx = PostgresTx(first)
        await clients.insert(tx, Client("c1", "c", 1, 10 * 39_000))
        for id in ("k1", "k2"):
            await campaigns.insert(tx, Campaign(id, "c1", "k", 1))
        pool = await asyncpg.create_pool(**SERVER, min_size=10, max_size=10, server_settings={"search_path": own})

        async def accept(n: int) -> bool:
            """One transaction for two campaigns, in this order or the other: neither waits for the other for ever."""
            async with pool.acquire() as connection:
                try:
                    async with connection.transaction():
                        for place in range(2):
                            row = made(
                                2 * n + place, campaign_id=f"k{1 + (n + place) % 2}", cost_estimated_micros=19_500
                            )
                            await generations.insert(PostgresTx(connection), row)
                except BudgetExceeded:
                    return False
            return True

        accepted = await asyncio.gather(*(accept(n) for n in range(50)))
        await pool.close()
        assert sum(accepted) == 10
        assert await first.fetchval("SELECT COUNT(*) FROM generations") == 20
        balances = dict(await first.fetch("SELECT owner_id, reserved_micros FROM balances"))
        assert balances == {"c1": 390_000, "k1": 195_000, "k2": 195_000}
        assert await first.fetchval("SELECT COUNT(*) FROM events WHERE type = 'budget.warning'") == 1


def test_a_refusal_changes_nothing_and_says_what_is_left(service: Service, who: Tenant) -> None:
    give(service, who, 0.3, to="client")
    assert ask(service, who).status == 202
    before = [content(service, table) for table in ("generations", "balances", "events", "idempotency_keys")]
    refused = ask(service, who, "video", headers={"Idempotency-Key": "one"})
    assert (refused.status, refused.json()["code"]) == (402, "budget_exceeded")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"].startswith("The client's budget of $0.30 has $0.261 left and this may cost $0.289:")
    assert before == [content(service, table) for table in ("generations", "balances", "events", "idempotency_keys")]

    give(service, who, 1, to="client")
    again = ask(service, who, "video", headers={"Idempotency-Key": "one"})
    assert again.status == 202 and "idempotent-replayed" not in again.headers


def test_what_ends_is_settled_or_released(service: Service, who: Tenant) -> None:
    done, failed, canceled, lost, bare = (service.generate(who)["id"] for _ in range(5))
    film = service.generate(who, "video")
    assert money(service, who) == money(service, who, "client") == (None, 0, round(6 * IMAGE_USD + 0.25, 6))
    service.completed(done, png())
    service.failed(failed)
    assert service.ask("POST", f"/api/v2/generations/{canceled}/cancel", {}, key=who.key).status == 200
    assert money(service, who) == (None, IMAGE_USD, round(3 * IMAGE_USD + 0.25, 6))

    async def lose(tx: Any) -> None:
        now = service.ctx.now()
        await generations.move(tx, lost, SUBMITTING, now=now, claimed_at=now)
        await generations.move(tx, lost, UNCLEAR, now=now)
        why = Failure("submit_unknown", "Nobody knows.", True)
        await generations.move(tx, lost, "failed", now=now, failure=why, possibly_charged=True)

    service.run(service.ctx.db.write(lose))
    assert money(service, who) == (None, 2 * IMAGE_USD, round(2 * IMAGE_USD + 0.25, 6))
    service.failed(film["source"]["image_id"])  # and with it what waited for it
    assert service.ask("GET", f"/api/v2/generations/{film['id']}").json()["status"] == "failed"
    assert money(service, who) == money(service, who, "client") == (None, 2 * IMAGE_USD, IMAGE_USD)

    for id in (done, lost):
        assert service.ask("DELETE", f"/api/v2/generations/{id}", key=who.key).status == 204
    assert money(service, who) == (None, 2 * IMAGE_USD, IMAGE_USD)  # what was spent does not vanish
    assert service.ask("GET", f"/api/v2/generations/{bare}").json()["cost_usd"] == {"estimated": 0.039, "actual": None}


def test_a_failure_makes_room_and_a_retry_needs_it(service: Service, who: Tenant) -> None:
    give(service, who, round(2 * IMAGE_USD, 6))
    first, second = service.generate(who)["id"], service.generate(who)["id"]
    assert ask(service, who).status == 402
    service.failed(first)
    service.failed(second)
    assert service.ask("POST", f"/api/v2/generations/{first}/retry", {}, key=who.key).status == 202
    assert ask(service, who).status == 202
    refused = service.ask("POST", f"/api/v2/generations/{second}/retry", {}, key=who.key)
    assert (refused.status, refused.json()["code"]) == (402, "budget_exceeded")
    assert len(content(service, "generations")) == 4


def test_a_retry_with_its_source_is_accepted_whole_or_not_at_all(service: Service, who: Tenant) -> None:
    film = service.generate(who, "video")
    service.failed(film["source"]["image_id"])
    before = content(service, "generations"), content(service, "balances")
    give(service, who, 0.1)  # enough for the image alone
    refused = service.ask("POST", f"/api/v2/generations/{film['id']}/retry", {}, key=who.key)
    assert refused.status == 402
    assert before == (content(service, "generations"), content(service, "balances"))


def test_a_warning_comes_once_for_each_budget_and_again_after_room_was_made(service: Service, who: Tenant) -> None:
    give(service, who, round(10 * IMAGE_USD, 6))
    ids = [service.generate(who)["id"] for _ in range(7)]
    assert warnings(service) == []
    ids += [service.generate(who)["id"] for _ in range(3)]
    (told,) = warnings(service)
    owner = {"scope": "campaign", "client_id": who.client_id, "campaign_id": who.campaign_id}
    assert told == {**owner, "budget_usd": 0.39, "used_usd": 0.312, "share": 0.8}
    service.completed(ids[0], png())
    assert len(warnings(service)) == 1
    for id in ids[1:5]:
        service.failed(id)
    for _ in range(3):
        service.generate(who)
    assert [one["used_usd"] for one in warnings(service)] == [0.312, 0.312]  # it had fallen to six of ten
    give(service, who, 0.4)
    give(service, who, 0.4, to="client")
    told = warnings(service)[2:]
    assert [(one["scope"], one["campaign_id"], one["budget_usd"], one["used_usd"]) for one in told] == [
        ("campaign", who.campaign_id, 0.4, 0.351),
        ("client", None, 0.4, 0.351),
    ]


def test_warnings_about_what_was_deleted_are_told_to_nobody_any_more(service: Service, who: Tenant) -> None:
    give(service, who, IMAGE_USD)
    service.failed(service.generate(who)["id"])
    assert [one["scope"] for one in warnings(service)] == ["campaign"]
    assert service.ask("DELETE", f"/api/v2/campaigns/{who.campaign_id}", key=who.key).status == 204
    listened = Topic("client", who.client_id)
    for _ in range(2):  # hidden at once, and not seen again when its campaign's row is gone
        assert service.run(service.ctx.db.read(lambda tx: feed.page(tx, listened, "", 10))) == []
        service.run(tidy.tidy(service.ctx))
    assert warnings(service) == []
    other = service.tenant("other")
    give(service, other, IMAGE_USD, to="client")
    service.failed(service.generate(other)["id"])
    assert [one["scope"] for one in warnings(service)] == ["client"]
    assert service.ask("DELETE", f"/api/v2/clients/{other.client_id}").status == 204
    for _ in range(2):
        service.run(tidy.tidy(service.ctx))
    assert warnings(service) == []


def test_a_budget_of_nothing_accepts_nothing_and_warns_of_nothing(service: Service, who: Tenant) -> None:
    give(service, who, 0)
    assert ask(service, who).status == 402 and warnings(service) == []
    assert give(service, who, None).json()["budget_usd"] is None
    assert ask(service, who).status == 202


NONSENSE = ("-1", "-0.000001", "NaN", "Infinity", "-Infinity", "1e400", "1000000001", '"5"', "true", "[1]", "{}")


@pytest.mark.parametrize("text", NONSENSE)
def test_what_is_no_budget_is_refused(service: Service, who: Tenant, text: str) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (
        ("POST", "/api/v2/campaigns"),
        ("POST", "/api/v2/clients"),
        ("PATCH", f"/api/v2/campaigns/{who.campaign_id}"),
        ("PATCH", f"/api/v2/clients/{who.client_id}"),
    ):
        whose = f', "client_id": "{who.client_id}"' if path == "/api/v2/campaigns" else ""
        body = f'{{"name": "n", "budget_usd": {text}{whose}}}'.encode()
        answer = service.ask(method, path, content=body, headers=headers)
        assert answer.status in (400, 422), answer.body
    assert money(service, who) == (None, 0, 0) and len(content(service, "campaigns")) == 1


def test_a_change_changes_what_is_given_and_no_more(service: Service, who: Tenant) -> None:
    made = service.ask("POST", "/api/v2/campaigns", {"name": "Spring", "budget_usd": 1e-7}, key=who.key)
    assert made.status == 201 and made.json()["budget_usd"] == 0
    path = made.headers["location"]
    assert service.ask("PATCH", path, {"budget_usd": 12.3456789}, key=who.key).json()["budget_usd"] == 12.345679
    renamed = service.ask("PATCH", path, {"name": "Summer"}, key=who.key).json()
    assert (renamed["name"], renamed["budget_usd"]) == ("Summer", 12.345679)
    assert service.ask("PATCH", path, {"budget_usd": None}, key=who.key).json()["name"] == "Summer"
    for nothing in ({}, {"name": None}, {"budget_micros": 1}):
        assert service.ask("PATCH", path, nothing, key=who.key).status == 422
    listed = service.ask("GET", "/api/v2/campaigns", key=who.key).json()["items"]
    assert [one["budget_usd"] for one in listed] == [None, None]


def test_only_an_admin_gives_a_client_its_budget(service: Service, who: Tenant) -> None:
    give(service, who, 1, to="client")
    assert service.ask("PATCH", f"/api/v2/clients/{who.client_id}", {"budget_usd": 100}, key=who.key).status == 403
    assert money(service, who, "client")[0] == 1
    other = service.tenant("other")
    path = f"/api/v2/campaigns/{who.campaign_id}"
    assert service.ask("PATCH", path, {"budget_usd": 0}, key=other.key).status == 404
    assert service.ask("PATCH", path, {"budget_usd": 2}, key=who.key).json()["budget_usd"] == 2


@pytest.fixture
def bench(tmp_path: Path, provider: Provider) -> Iterator[Workshop]:
    """Without a worker and without webhooks: what the provider says is asked for."""
    with working(tmp_path, provider, worker=False, webhooks=False) as bench:
        yield bench


def by_time(bench: Workshop) -> None:
    """As a model that is billed by the time it runs."""
    known = bench.ctx.catalog
    key = ("replicate", "google/nano-banana")
    timed: Model = replace(known.models[key], prices=(Rule(per_predict_second=1000.0, typical_s=0.00005),))
    bench.ctx.catalog = replace(known, models={**known.models, key: timed})


def test_what_is_billed_by_time_costs_what_the_provider_says(bench: Workshop, provider: Provider) -> None:
    by_time(bench)
    id = bench.ask()["id"]
    assert bench.get(id)["cost_usd"] == {"estimated": 0.05, "actual": None}
    bench.submit_next()
    provider.ended(bench.row(id).provider_id)
    bench.forward(60)
    bench.look("processing")
    told = provider.get(bench.row(id).provider_id)["metrics"]["predict_time"]
    assert bench.stage(id) == "storing" and bench.row(id).cost_actual_micros == round(told * 1000 * 1_000_000) > 0
    bench.look("storing")
    assert bench.ended(id, "completed")["cost_usd"]["actual"] == round(told * 1000, 6)
    campaign = bench.http.get(f"/api/v2/campaigns/{bench.campaign_id}").json()
    assert (campaign["spent_usd"], campaign["reserved_usd"]) == (round(told * 1000, 6), 0)


def test_a_run_that_failed_is_paid_if_its_time_is(bench: Workshop, provider: Provider) -> None:
    by_time(bench)
    provider.spoil({"kind": "failed"})
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id)
    bench.forward(60)
    bench.look("processing")
    told = provider.get(bench.row(id).provider_id)["metrics"]["predict_time"]
    assert bench.ended(id, "failed")["cost_usd"]["actual"] == round(told * 1000, 6)
    assert json.loads(bench.http.get(f"/api/v2/campaigns/{bench.campaign_id}").text)["spent_usd"] > 0
