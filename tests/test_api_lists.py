"""Lists: complete whatever happens meanwhile, narrowed as asked, and at the same cost however long they are."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from api_service import Service, Tenant, png, running

from backend.db import lists
from backend.db.lists import Filters
from backend.db.migrate import migrate


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("lists")) as found:
        yield found


def page(service: Service, path: str, key: str, **query: Any) -> dict[str, Any]:
    answer = service.ask("GET", f"/api/v2/{path}?{urlencode(query)}", key=key)
    assert answer.status == 200, answer.body
    assert set(answer.json()) == {"items", "next_cursor"}
    return answer.json()


def ids(service: Service, path: str, key: str, **query: Any) -> list[str]:
    """Every page to the end."""
    found, cursor = [], {}
    while True:
        one = page(service, path, key, **query, **cursor)
        found += [row["id"] for row in one["items"]]
        if one["next_cursor"] is None:
            return found
        cursor = {"cursor": one["next_cursor"]}


def test_the_pages_hold_every_row_once_though_new_ones_come_in(service: Service) -> None:
    who = service.tenant()
    old = [service.generate(who)["id"] for _ in range(25)]
    for path in (
        "generations",
        f"campaigns/{who.campaign_id}/generated-images",
        f"clients/{who.client_id}/generated-images",
    ):
        seen, cursor = [], {}
        while True:
            one = page(service, path, who.key, limit=7, **cursor)
            assert len(one["items"]) <= 7
            seen += [row["id"] for row in one["items"]]
            service.generate(who)
            if not one["next_cursor"]:
                break
            cursor = {"cursor": one["next_cursor"]}
        assert [id for id in seen if id in old] == old[::-1]
        assert len(seen) == len(set(seen))


def test_a_full_last_page_has_no_next_one(service: Service) -> None:
    who = service.tenant()
    for _ in range(4):
        service.generate(who)
    assert page(service, "generations", who.key, limit=4)["next_cursor"] is None
    assert page(service, "generations", who.key, limit=2, status="pending")["next_cursor"]
    assert len(ids(service, "generations", who.key, limit=2, status="pending")) == 4


@pytest.fixture(scope="module")
def mixed(service: Service) -> tuple[Tenant, dict[str, str]]:
    """A client with one of everything, by name."""
    who = service.tenant()
    made = {
        name: service.generate(who, prompt=name)["id"] for name in ("Über 100%_sure", "Above \\ 100 percent", "plain")
    }
    video = service.generate(who, kind="video", prompt="a film")
    made |= {"a film": video["id"], "start": video["source"]["image_id"]}
    service.completed(made["plain"], png())
    service.submitted(made["Above \\ 100 percent"])
    second = service.ask("POST", "/api/v2/campaigns", {"name": "second"}, key=who.key).json()["id"]
    made["elsewhere"] = service.generate(who, prompt="elsewhere", campaign_id=second)["id"]
    made["second"] = second
    return who, made


@pytest.mark.hazard(45)
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"kind": "video"}, ["a film"]),
        ({"status": "completed"}, ["plain"]),
        ({"status": "processing"}, ["Above \\ 100 percent"]),
        ({"status": "pending", "kind": "image"}, ["elsewhere", "start", "Über 100%_sure"]),
        ({"status": "failed"}, []),
        ({"provider": "replicate", "kind": "video"}, ["a film"]),
        ({"provider": "runway"}, []),
        ({"model": "kwaivgi/kling-v2.1"}, ["a film"]),
        ({"q": "FILM"}, ["start", "a film"]),
        ({"q": "%"}, ["Über 100%_sure"]),
        ({"q": "_"}, ["Über 100%_sure"]),
        ({"q": "\\"}, ["Above \\ 100 percent"]),
        ({"q": "Über"}, ["Über 100%_sure"]),
        ({"q": "100"}, ["Above \\ 100 percent", "Über 100%_sure"]),
        ({"q": "' OR 1=1 --"}, []),
        ({"campaign_id": "second"}, ["elsewhere"]),
        ({"campaign_id": "nothing"}, []),
    ],
)
def test_a_filter_keeps_what_fits(
    service: Service, mixed: tuple[Tenant, dict[str, str]], query: dict[str, str], names: list[str]
) -> None:
    who, made = mixed
    query = {name: made.get(value, value) if name == "campaign_id" else value for name, value in query.items()}
    order = sorted((made[name] for name in names), reverse=True)
    assert ids(service, "generations", who.key, **query) == order
    assert ids(service, "generations", service.admin, client_id=who.client_id, **query) == order
    assert ids(service, "generations", who.key, limit=1, **query) == order


def test_times_bound_a_list(service: Service, mixed: tuple[Tenant, dict[str, str]]) -> None:
    who, made = mixed
    everything = ids(service, "generations", who.key)
    middle = service.ask("GET", f"/api/v2/generations/{made['plain']}", key=who.key).json()["created_at"]
    after = ids(service, "generations", who.key, created_after=middle)
    before = ids(service, "generations", who.key, created_before=middle)
    assert sorted(after + before, reverse=True) == everything and made["plain"] in after
    shifted = middle.replace("Z", "+00:00")
    assert ids(service, "generations", who.key, created_after=shifted) == after
    assert ids(service, "generations", who.key, created_after="9999-12-31T23:59:59Z") == []
    assert ids(service, "generations", who.key, created_before="0001-01-01T00:00:00+14:00") == []


def test_the_lists_of_a_client_and_a_campaign_are_of_one_kind(
    service: Service, mixed: tuple[Tenant, dict[str, str]]
) -> None:
    who, made = mixed
    for noun, id in (("clients", who.client_id), ("campaigns", who.campaign_id)):
        assert ids(service, f"{noun}/{id}/generated-videos", who.key) == [made["a film"]]
        images = ids(service, f"{noun}/{id}/generated-images", who.key)
        assert made["plain"] in images and made["a film"] not in images
        assert (made["elsewhere"] in images) == (noun == "clients")
        assert ids(service, f"{noun}/{id}/generated-images", who.key, status="completed") == [made["plain"]]


@pytest.mark.hazard(43)
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1e3",
        "limit=99999999999999999999",
        "limit=",
        "cursor=",
        "cursor=x",
        "cursor=%00",
        "cursor=%ff",
        "cursor=" + "A" * 500,
        "cursor=MDE5YWJjZGU=",
        "cursor=%F0%9F%A6%8A",
        "cursor=a&cursor=b",
        "kind=song",
        "status=queued",
        "created_after=yesterday",
        "created_after=2026-01-01T00:00:00",
        "created_after=1e400",
        "created_after=1700000000",
        "created_before=2026-13-01T00:00:00Z",
        "q=",
        "q=%00",
        "q=" + "x" * 201,
        "offset=1",
        "sort=created_at;DROP TABLE clients",
        "order=desc",
    ],
)
def test_a_query_that_makes_no_sense_is_422(service: Service, query: str) -> None:
    answer = service.ask("GET", f"/api/v2/generations?{quote(query, safe='=&%+')}")
    assert answer.status == 422, answer.body
    assert answer.json()["errors"][0]["field"]


def test_every_kind_of_list_is_paged(service: Service) -> None:
    who = service.tenant()
    for n in range(3):
        service.ask("POST", "/api/v2/campaigns", {"name": f"n{n}"}, key=who.key)
        service.key(who.client_id)
        service.ask("POST", "/api/v2/clients", {"name": f"n{n}"})
    for path, key in (
        ("campaigns", who.key),
        ("campaigns", service.admin),
        ("clients", service.admin),
        ("keys", service.admin),
    ):
        found = ids(service, path, key, limit=2)
        assert len(found) >= 4 and found == sorted(set(found), reverse=True)


class Recorder:
    """A transaction that counts the steps of SQLite's machine and keeps the plans."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.plans: list[str] = []
        self.steps = 0

    def _count(self) -> int:
        self.steps += 1
        return 0

    async def all(self, sql: str, **params: Any) -> list[Any]:
        plan = self.connection.execute(f"EXPLAIN QUERY PLAN {sql}", params).fetchall()
        self.plans += [row["detail"] for row in plan]
        self.connection.set_progress_handler(self._count, 10)
        rows = self.connection.execute(sql, params).fetchall()
        self.connection.set_progress_handler(None, 0)
        return rows

    async def one(self, sql: str, **params: Any) -> Any:
        rows = await self.all(sql, **params)
        return rows[0] if rows else None


FIXED = {"provider": "p", "model": "m", "source": "{}", "params": "{}", "metadata": "{}", "nonce": "n"}


def row(i: int) -> tuple[Any, ...]:
    fields = FIXED | {"id": f"{i:08x}-0000-7000-8000-{i:012x}", "client_id": f"c{i % 4}", "campaign_id": f"k{i % 4}"}
    fields |= {"kind": "image" if i % 3 else "video", "status": "queued" if i % 5 else "waiting"}
    fields |= {"prompt": f"prompt {i}", "created_at": i, "due_at": i}
    return tuple(fields.values())


INSERT = "INSERT INTO generations ({}) VALUES ({})"


def filled(path: Path, rows: int) -> sqlite3.Connection:
    migrate(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = OFF")
    for n in range(4):
        connection.execute("INSERT INTO clients (id, name, created_at) VALUES (?, ?, 1)", (f"c{n}", "n"))
        connection.execute(
            "INSERT INTO campaigns (id, client_id, name, created_at) VALUES (?, ?, ?, 1)", (f"k{n}", f"c{n}", "n")
        )
    connection.execute("BEGIN")
    names = ("id", "client_id", "campaign_id", "kind", "status", "prompt", "created_at", "due_at")
    statement = INSERT.format(", ".join((*FIXED, *names)), ", ".join("?" * (len(FIXED) + len(names))))
    connection.executemany(statement, map(row, range(1, rows + 1)))
    connection.execute("COMMIT")
    return connection


EVERY = [
    Filters(),
    Filters(kind="video"),
    Filters(client_id="c1"),
    Filters(client_id="c1", kind="image"),
    Filters(campaign_id="k1"),
    Filters(campaign_id="k1", kind="video"),
    Filters(campaign_id="k1", client_id="c1", kind="video"),
    Filters(statuses=("queued",)),
    Filters(client_id="c1", statuses=("completed",)),
    Filters(client_id="c1", q="nowhere"),
    Filters(model="m", created_after=5, created_before=1 << 40),
]


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    folder = tmp_path_factory.mktemp("sizes")
    with closing(filled(folder / "small.db", 30_000)) as small, closing(filled(folder / "large.db", 150_000)) as large:
        yield small, large


@pytest.mark.parametrize("filters", EVERY, ids=str)
def test_a_page_costs_the_same_of_30_000_rows_and_of_150_000(
    sizes: tuple[sqlite3.Connection, sqlite3.Connection], filters: Filters
) -> None:
    costs = []
    for connection in sizes:
        tx = Recorder(connection)
        asyncio.run(lists.page(tx, filters, None, 20))  # type: ignore[arg-type]
        asyncio.run(lists.page(tx, filters, "00002000-0000-7000-8000-000000000000", 20))  # type: ignore[arg-type]
        costs.append(tx.steps)
        assert not [detail for detail in tx.plans if "TEMP B-TREE" in detail]
        assert not [detail for detail in tx.plans if detail.startswith("SCAN") and "generations" in detail]
    assert costs[1] <= costs[0] * 1.3 + 50
