"""Nothing a client sends holds up the others: many parameters, many members, long chains, endless retries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, running

from backend.core.generation import Failure, Generation
from backend.core.ids import new_id
from backend.core.people import Campaign, Client
from backend.db import campaigns, clients, dependencies, generations
from backend.db.connection import Tx
from backend.db.migrate import migrate
from backend.db.sqlite import SqliteDb

CHAIN = 1500  # deeper than Python's own stack


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDb]:
    migrate(tmp_path / "bounds.db")
    opened = await SqliteDb.open(tmp_path / "bounds.db")
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("bounds")) as found:
        yield found


def row(status: str) -> Generation:
    fixed: dict[str, Any] = {"kind": "image", "client_id": "c", "campaign_id": "k", "provider": "replicate"}
    fixed |= {"model": "m", "nonce": "n", "source": {}, "params": {}, "metadata": {}, "created_at": 1, "due_at": 1}
    return Generation(id=new_id(1), status=status, **fixed)


async def release_all(db: SqliteDb) -> int:
    """What the worker does after a source has ended; how many bites it took."""
    bites = 0
    while ended := await db.read(lambda tx: dependencies.ended(tx, 10)):
        for id in ended:
            await db.write(lambda tx, id=id: generations.release(tx, id, 3))  # type: ignore[misc]
            bites += 1
    return bites


async def test_a_chain_of_any_length_fails_with_its_first(db: SqliteDb) -> None:
    rows = [row("queued"), *(row("waiting") for _ in range(CHAIN))]

    async def build(tx: Tx) -> None:
        await clients.insert(tx, Client("c", "c", 1))
        await campaigns.insert(tx, Campaign("k", "c", "k", 1))
        for before, one in zip([None, *rows], rows, strict=False):
            await generations.insert(tx, replace(one))
            if before:
                await dependencies.insert(tx, one.id, before.id)

    await db.write(build)
    broke = Failure("provider_failed", "It broke.")
    await db.write(lambda tx: generations.move(tx, rows[0].id, "failed", now=2, failure=broke))
    assert await release_all(db) >= CHAIN - 1  # and none of them in one transaction with another
    last = await db.read(lambda tx: generations.get(tx, rows[-1].id))
    assert last is not None
    assert last.failure is not None
    assert (last.status, last.failure.code) == ("failed", "source_failed")


def test_a_query_of_thousands_of_parameters_is_refused_at_once(service: Service) -> None:
    who = service.tenant()
    many = "&".join(f"a{number}=1" for number in range(5000))
    answer = service.ask("GET", f"/api/v2/generations?{many}", key=who.key)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "query")


@pytest.mark.hazard(44)
def test_an_object_of_thousands_of_members_is_refused_at_once(service: Service) -> None:
    who = service.tenant()
    body = {"name": "a"} | {f"a{number}": 1 for number in range(5000)}
    answer = service.ask("POST", "/api/v2/campaigns", body, key=who.key)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "body")


def test_a_retry_counts_as_a_request_of_its_kind(service: Service) -> None:
    who = service.tenant()
    made = service.generate(who)
    service.ask("POST", f"/api/v2/generations/{made['id']}/cancel", {}, key=who.key)
    key, _ = service.key(who.client_id, image_limit="2/minute")
    path = f"/api/v2/generations/{made['id']}/retry"
    answers = [service.ask("POST", path, {}, key=key) for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
