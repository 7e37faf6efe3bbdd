"""One request that means many rows: they are made in bites, and nobody's writes wait for all of them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_service import running
from emulating import Provider, until
from gateway import gateway
from receivers import endpoint, receiving, status, tell
from transactions import MOST_ROWS
from workshop import Workshop, working

from backend.core.events import Event
from backend.core.generation import Generation
from backend.core.ids import new_id
from backend.core.outcomes import ProviderWebhook
from backend.core.people import Campaign, Client
from backend.core.webhooks import SHORT_ANSWER, Attempt, Endpoint
from backend.db import (
    campaigns,
    clients,
    dependencies,
    generations,
    holdings,
    provider_webhooks,
    webhook_attempts,
    webhook_deliveries,
)
from backend.db import commits as module
from backend.db import webhook_endpoints as endpoints
from backend.db.connection import Tx
from backend.db.migrate import migrate
from backend.db.sqlite import SqliteDb
from backend.manage import webhook_endpoints
from backend.steps import release
from backend.upkeep import tidy

pytestmark = pytest.mark.story

INSIDE = {"webhook_allow_cidrs": "127.0.0.0/8"}
NOWHERE = "http://127.0.0.1:9/hook"


def add_endpoints(shop: Workshop, url: str, many: int) -> None:
    client_id = shop.row(shop.ask()["id"]).client_id

    async def work(tx: Tx) -> None:
        for number in range(many):
            made = Endpoint(new_id(number + 1), client_id, url, (), "whsec_" + "A" * 32, *[None] * 5, 1)  # type: ignore[arg-type]
            await endpoints.insert(tx, made)

    shop.run(shop.ctx.db.write(work))


def dependents(shop: Workshop, source: str, many: int) -> list[str]:
    """So many videos that wait for one image, written at once: what many requests would have made."""
    first = shop.row(shop.ask("video", image_id=source, prompt="it moves")["id"])

    async def work(tx: Tx) -> list[str]:
        found = [first.id]
        for _ in range(many - 1):
            one = replace(first, id=new_id(shop.ctx.now()))
            await generations.insert(tx, one)
            await dependencies.insert(tx, one.id, source)
            found.append(one.id)
        return found

    return shop.run(shop.ctx.db.write(work))


def statuses(folder: Path, ids: list[str]) -> Counter[str]:
    with closing(sqlite3.connect(folder / "reelhook.db")) as connection:
        rows = dict(connection.execute("SELECT id, status || COALESCE(' ' || error_code, '') FROM generations"))
    return Counter(rows[id] for id in ids)


def work_off(shop: Workshop) -> int:
    """What the worker does after a source has ended; how many rounds it took."""
    rounds = 0
    while shop.run(release.go_on(shop.ctx)):
        rounds += 1
    return rounds


@pytest.mark.hazard(55)
@pytest.mark.timeout(240)
def test_a_canceled_source_of_four_hundred_told_to_fifty_endpoints_holds_up_nobody(bench: Workshop) -> None:
    bench.finished = False
    add_endpoints(bench, NOWHERE, webhook_endpoints.MOST_ENDPOINTS)
    source = bench.ask()["id"]
    ids = dependents(bench, source, 400)
    bench.changed.clear()
    began = time.monotonic()
    assert bench.cancel(source).status_code == 200
    assert time.monotonic() - began < 5
    assert 0 < max(bench.changed) <= MOST_ROWS
    left = statuses(bench.folder, ids)
    assert left["waiting"] >= 390, "the answer did not wait for them"
    assert work_off(bench) > 100
    assert statuses(bench.folder, ids) == {"failed source_failed": 400}
    assert max(bench.changed) <= MOST_ROWS
    with closing(sqlite3.connect(bench.folder / "reelhook.db")) as connection:
        told = connection.execute("SELECT COUNT(*) FROM webhook_deliveries WHERE type = 'generation.failed'").fetchone()
    assert told == (400 * webhook_endpoints.MOST_ENDPOINTS,)


@pytest.mark.hazard(55)
def test_what_waits_for_one_image_goes_on_soon_after_it_is_there(shop: Workshop) -> None:
    image = shop.ask()["id"]
    ids = dependents(shop, image, 12)
    for id in ids:
        assert shop.ended(id, within_s=60)["status"] == "completed"


def test_a_crash_between_two_bites_is_a_state_from_which_the_next_worker_goes_on(
    tmp_path: Path, provider: Provider
) -> None:
    with working(tmp_path, provider, worker=False) as bench:
        bench.finished = False
        source = bench.ask()["id"]
        ids = dependents(bench, source, 30)
        assert bench.cancel(source).status_code == 200
        bench.run(release.go_on(bench.ctx))
        begun = statuses(tmp_path, ids)
        assert 0 < begun["failed source_failed"] < 30 and begun["waiting"] > 0, begun
    with working(tmp_path, provider) as shop:
        until(lambda: statuses(tmp_path, ids) == {"failed source_failed": 30})
        assert shop.get(source)["status"] == "canceled"


def test_kill_9_while_dependents_fail_leaves_none_behind(tmp_path: Path, provider: Provider) -> None:
    assert provider.spoil({"kind": "delay", "delay_s": 30}).status_code < 300
    with gateway(tmp_path, provider) as service:
        source = service.ask()["id"]
        ids = []
        for number in range(15):
            copies = service.ask("video", image_id=source, prompt=f"it moves {number}", copies=4)
            ids += [one["id"] for one in copies]
        service.reach(source, "processing")
        provider.spoil()
        assert service.cancel(source).status_code == 202  # the provider has the last word
        for _ in range(3):
            until(lambda: statuses(tmp_path, ids)["waiting"] < 60)
            service.restart()
        for id in ids:
            ended = service.ended(id, within_s=60)
            assert ended["error"]["code"] == "source_failed"


@pytest.mark.hazard(55)
def test_a_generation_that_was_told_a_thousand_times_is_deleted_in_bites(bench: Workshop) -> None:
    bench.finished = False
    id = bench.ask()["id"]
    assert bench.cancel(id).status_code == 200
    row = bench.row(id)

    async def work(tx: Tx) -> None:
        for number in range(1_200):
            event = replace(webhook_deliveries.first(_event(row), None, NOWHERE, "x"), id=new_id(number + 1))
            await webhook_deliveries.insert(tx, event)
            await holdings.add(tx, row.client_id, holdings.Held(told=1))
            await webhook_attempts.keep(tx, Attempt(event.id, 1, 1, 1, 500, "no", None))

    bench.run(bench.ctx.db.write(work))
    bench.changed.clear()
    assert bench.http.delete(f"/api/v2/generations/{id}").status_code == 204
    assert 0 < max(bench.changed) <= MOST_ROWS
    assert bench.http.get(f"/api/v2/generations/{id}").status_code == 404


def _event(row: Generation) -> Any:
    return Event(new_id(5), row.id, row.client_id, row.campaign_id, "generation.canceled", None, 5)


@pytest.mark.hazard(55)
@pytest.mark.timeout(240)
def test_a_client_with_thousands_of_campaigns_and_webhooks_is_deleted_in_bites(bench: Workshop) -> None:
    bench.finished = False
    client_id = bench.client("large")
    campaign_id = bench.campaign("large", client_id)
    bench.campaign_id = campaign_id
    ids = bench.ask_many(20)
    for id in ids:
        assert bench.cancel(id).status_code == 200
    row = bench.row(ids[0])

    async def work(tx: Tx) -> None:
        for number in range(3_000):
            await campaigns.insert(tx, Campaign(new_id(number + 1), client_id, "one of many", 1))
        for number in range(400):
            delivery = webhook_deliveries.first(_event(bench_rows[number % 20]), None, NOWHERE, "x")
            await webhook_deliveries.insert(tx, replace(delivery, id=new_id(number + 1)))
            await holdings.add(tx, client_id, holdings.Held(told=1))

    bench_rows = [bench.row(id) for id in ids]
    bench.run(bench.ctx.db.write(work))
    bench.changed.clear()
    assert bench.http.delete(f"/api/v2/clients/{client_id}").status_code == 204
    assert bench.http.get("/api/v2/campaigns?limit=100").json()["items"][0]["client_id"] != client_id
    for _ in range(3):
        bench.run(tidy.tidy(bench.ctx))
    assert max(bench.changed) <= MOST_ROWS
    left = bench.run(
        bench.ctx.db.read(
            lambda tx: tx.all(
                "SELECT id FROM campaigns WHERE client_id = :id UNION ALL SELECT id FROM clients WHERE id = :id "
                "UNION ALL SELECT client_id FROM holdings WHERE client_id = :id",
                id=row.client_id,
            )
        )
    )
    assert left == []


async def test_works_that_wait_together_share_a_commit_only_until_so_many_rows(tmp_path: Path) -> None:
    migrate(tmp_path / "rows.db")
    db = await SqliteDb.open(tmp_path / "rows.db")
    commits: list[int] = []
    await db.write(lambda tx: clients.insert(tx, Client("c", "c", 1)))

    async def large(tx: Tx) -> int:
        before = await tx.one("SELECT COUNT(*) AS n FROM campaigns")
        for _ in range(300):
            await campaigns.insert(tx, Campaign(new_id(1), "c", "k", 1))
        return int(before["n"]) if before else 0

    run_together = module._run_together

    def watched(connection: sqlite3.Connection, works: Any, run: Any) -> Any:
        answers = run_together(connection, works, run)
        commits.append(len(answers))
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_run_together", watched)
        found = await asyncio.gather(*(db.write(large) for _ in range(12)))
    await db.close()
    assert found == [300 * number for number in range(12)], "each once, in the order of asking"
    assert sum(commits) == 12 and max(commits) == 2


@pytest.mark.hazard(56)
@pytest.mark.timeout(240)
def test_five_requests_cannot_fill_the_database_with_receivers_answers(tmp_path: Path) -> None:
    with running(tmp_path, **INSIDE) as service, receiving() as receiver:
        receiver.usual = status(500, body=b"x" * 200_000)
        who = service.tenant()
        for number in range(20):
            endpoint(service, who, f"{receiver.url}/{number}")
        before = (tmp_path / "test.db").stat().st_size
        for _ in range(5):
            made = service.generate(who, copies=4)["items"]
            for one in made:
                service.ask("POST", f"/api/v2/generations/{one['id']}/cancel", {}, key=who.key)
        forward = service.ctx.now
        for attempt in range(3):
            service.ctx.now = lambda ahead=attempt: forward() + 3_600_000 * ahead  # type: ignore[misc]
            while tell(service):
                pass
        with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
            lengths = [row[0] or 0 for row in connection.execute("SELECT LENGTH(answer) FROM webhook_attempts")]
        assert len(lengths) == 5 * 4 * 20 * 3
        long = [length for length in lengths if length > SHORT_ANSWER]
        assert set(long) == {64 << 10} and len(long) <= 20 * webhook_attempts.LONG_ANSWERS
        assert sum(lengths) < len(lengths) * SHORT_ANSWER + len(long) * (64 << 10) + 1
        assert sum(lengths) < 10_000_000 and before < 1_000_000


@pytest.mark.hazard(56)
def test_of_several_attempts_the_last_answer_is_kept_in_full(tmp_path: Path) -> None:
    with running(tmp_path, **INSIDE) as service, receiving() as receiver:
        who = service.tenant()
        made = endpoint(service, who, receiver.url)
        receiver.answers = [status(500, body=f"{number} ".encode() * 10_000) for number in range(3)]
        assert service.ask("POST", f"/api/v2/webhook-endpoints/{made['id']}/test", {}, key=who.key).status == 202
        now = service.ctx.now
        for attempt in range(3):
            service.ctx.now = lambda ahead=attempt: now() + 86_400_000 * ahead  # type: ignore[misc]
            assert len(tell(service)) == 1
        id = service.ask("GET", "/api/v2/webhook-deliveries", key=who.key).json()["items"][0]["id"]
        log = service.ask("GET", f"/api/v2/webhook-deliveries/{id}", key=who.key).json()["attempts"]
        assert [len(one["answer"]) for one in log] == [SHORT_ANSWER, SHORT_ANSWER, 20_000]


@pytest.mark.hazard(56)
def test_of_a_providers_long_word_the_beginning_stays_once_it_was_acted_on(shop: Workshop) -> None:
    id = shop.ask()["id"]
    shop.ended(id, "completed")
    word = b'{"logs": "' + b"x" * 500_000 + b'"}'
    delivery = ProviderWebhook(shop.ctx.new_id(), "replicate", id, "long", word, shop.ctx.now())
    shop.run(shop.ctx.db.write(lambda tx: provider_webhooks.insert(tx, delivery)))
    shop.loop.call_soon_threadsafe(shop.ctx.wake)

    def kept() -> int:
        with closing(sqlite3.connect(shop.folder / "reelhook.db")) as connection:
            (length,) = connection.execute("SELECT LENGTH(body) FROM deliveries WHERE webhook_id = 'long'").fetchone()
        return int(length)

    until(lambda: kept() == provider_webhooks.KEPT_CHARACTERS)
