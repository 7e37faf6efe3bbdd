"""Usage: what was made and what it cost, by whatever it is asked for; it is what the rows add up to."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, Tenant, png, running
from auditor import of_money
from postgresql import PostgresTx, postgres

from backend.core.errors import SettingsError
from backend.core.ids import new_id
from backend.core.model_files import parse
from backend.db import generations
from backend.db.connection import Tx
from backend.db.migrate import migrate
from backend.db.sqlite import SqliteDb
from backend.db.versions import known
from backend.manage.usage import MOST_GROUPS
from backend.providers.catalog import load
from backend.upkeep import tidy

GROUPS = ("campaign", "client", "model", "provider", "key", "day")
COUNTS = ("pending", "processing", "completed", "failed", "canceled")
DAY_MS = 86_400_000


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as found:
        yield found
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.row_factory = sqlite3.Row
        assert list(of_money(connection)) == []


def usage(service: Service, query: str = "", key: str | None = None) -> dict[str, Any]:
    answer = service.ask("GET", f"/api/v2/usage?{query}", key=key)
    assert answer.status == 200, answer.body
    return answer.json()


def counts(group: dict[str, Any]) -> tuple[int, ...]:
    return tuple(group["counts"][name] for name in COUNTS)


def one_of_each(service: Service, who: Tenant) -> None:
    """A generation in every status that clients are shown."""
    done, failed, canceled, running = (service.generate(who)["id"] for _ in range(4))
    service.generate(who, "video", duration=10)  # and its start image
    service.completed(done, png())
    service.failed(failed)
    service.ask("POST", f"/api/v2/generations/{canceled}/cancel", {}, key=who.key)
    service.submitted(running)


def put_back(service: Service, id: str, days: int) -> None:
    """As if it had been asked for so many days ago."""

    async def work(tx: Any) -> None:
        row = await generations.get(tx, id)
        assert row is not None
        await generations.note(tx, id, status=row.status, created_at=row.created_at - days * DAY_MS)

    service.run(service.ctx.db.write(work))


def test_it_counts_every_status_and_what_it_cost(service: Service) -> None:
    who = service.tenant()
    one_of_each(service, who)
    found = usage(service, key=who.key)
    assert counts(found["total"]) == (2, 1, 1, 1, 1)
    assert found["total"]["cost_usd"] == {"estimated": 0.695, "actual": 0.039, "reserved": 0.578}
    assert found["total"]["bytes"] == len(png()) and found["total"]["seconds"] == 0
    campaign = service.ask("GET", f"/api/v2/campaigns/{who.campaign_id}", key=who.key).json()
    assert (campaign["spent_usd"], campaign["reserved_usd"]) == (0.039, 0.578)
    assert [(one["id"], one["name"]) for one in found["items"]] == [(who.campaign_id, "campaign")]


def test_every_grouping_adds_up_to_the_same(service: Service) -> None:
    first, second = service.tenant("first"), service.tenant("second")
    for who in (first, second):
        one_of_each(service, who)
    service.ask("POST", "/api/v2/generate/image", {"campaign_id": first.campaign_id, "prompt": "by an admin"})
    reports = {group: usage(service, f"group_by={group}") for group in GROUPS}
    assert len({str(report["total"]) for report in reports.values()}) == 1
    for group, report in reports.items():
        assert report["group_by"] == group
        assert [sum(column) for column in zip(*map(counts, report["items"]), strict=True)] == [5, 2, 2, 2, 2]
    names = {group: {one["id"]: one["name"] for one in report["items"]} for group, report in reports.items()}
    assert names["client"] == {first.client_id: "first", second.client_id: "second"}
    assert set(names["model"]) == {"google/nano-banana", "kwaivgi/kling-v2.1"} and names["provider"] == {
        "replicate": None
    }
    assert names["key"].keys() > {first.key_id, second.key_id} and len(names["key"]) == 3
    assert list(names["day"]) == [datetime.now(UTC).date().isoformat()]
    assert {one["model"]: one["checked_at"] for one in reports["day"]["prices"]} == {
        model.name: str(model.checked_at) for model in load().models.values()
    }
    assert all(one["source"] for one in reports["day"]["prices"])


def test_a_client_sees_itself_alone(service: Service) -> None:
    first, second = service.tenant("first"), service.tenant("second")
    for who in (first, second):
        service.generate(who)
    service.ask("POST", "/api/v2/generate/image", {"campaign_id": first.campaign_id, "prompt": "by an admin"})
    assert [one["id"] for one in usage(service, "group_by=client", first.key)["items"]] == [first.client_id]
    for other in (f"client_id={second.client_id}", f"campaign_id={second.campaign_id}"):
        found = usage(service, other, first.key)
        assert (found["items"], counts(found["total"]), found["prices"]) == ([], (0,) * 5, [])
    mine = usage(service, "group_by=key", first.key)["items"]
    assert sorted(one["name"] or "" for one in mine) == ["", "test"]  # an admin's key has no name for a client
    assert counts(usage(service, f"client_id={first.client_id}")["total"]) == (2, 0, 0, 0, 0)
    assert counts(usage(service, f"campaign_id={second.campaign_id}")["total"]) == (1, 0, 0, 0, 0)
    assert service.ask("GET", "/api/v2/usage", key="").status == 401


def test_days_are_counted_whole_in_utc(service: Service) -> None:
    who = service.tenant()
    for days in (0, 1, 2, 40):
        id = service.generate(who)["id"]
        put_back(service, id, days)
        if days != 1:
            service.failed(id)
    today = datetime.now(UTC).date()

    def days(query: str) -> list[int]:
        return [
            (today - date.fromisoformat(one["id"])).days for one in usage(service, f"group_by=day&{query}")["items"]
        ]

    at = {n: (today - timedelta(days=n)).isoformat() for n in (-1, 0, 1, 2, 3)}
    assert days("") == [40, 2, 1, 0]
    assert days(f"from={at[2]}") == [2, 1, 0]
    assert days(f"from={at[2]}&to={at[0]}") == [2, 1]
    assert days(f"from={at[2]}T23:59:59.999Z&to={at[1]}T00:00:00Z") == [2]
    assert days(f"from={at[2]}&to={at[1]}T00:00:01Z") == [2, 1]
    assert days(f"from={at[1]}T00:30:00%2B01:00&to={at[1]}") == [2]  # half past eleven of the day before, in UTC
    assert days(f"from={at[1]}&to={at[1]}") == []
    found = usage(service, f"from={at[2]}T10:00:00Z&to={at[1]}T10:00:00Z")
    assert (found["from"], found["to"]) == (at[2], at[0])
    assert (usage(service)["from"], usage(service)["to"]) == (None, None)


@pytest.mark.parametrize(
    "query",
    [
        "group_by=weekday",
        "group_by=",
        "group_by=day&group_by=key",
        "from=2026-13-01",
        "from=2026-02-30",
        "from=yesterday",
        "from=2026-01-01T00:00:00",
        "from=2026-01-01T25:00:00Z",
        "to=%D9%A2026-01-01",
        "from=2026-02-01&to=2026-01-01",
        "format=xml",
        "client_id=" + "x" * 65,
        "campaign_id=",
        "since=2026-01-01",
        "from=2026-01-01%00",
    ],
)
def test_what_cannot_be_asked_is_refused(service: Service, query: str) -> None:
    answer = service.ask("GET", f"/api/v2/usage?{query}")
    assert answer.status == 422, answer.body


@pytest.mark.parametrize(
    "query", ["from=0001-01-01T00:00:00%2B23:59", "to=9999-12-31T23:59:59-23:59", "from=0001-01-01"]
)
def test_the_ends_of_the_calendar_are_dates_too(service: Service, query: str) -> None:
    assert usage(service, query)["items"] == []


def test_a_table_reads_back_and_holds_no_formula(service: Service) -> None:
    who = service.tenant()
    names = ['=HYPERLINK("http://x","y")', "+1", "-1", "@cmd", 'a "quoted", name', "two\nlines", "Größe"]
    for name in names:
        made = service.ask("POST", "/api/v2/campaigns", {"name": name}, key=who.key).json()
        service.ask("POST", "/api/v2/generate/image", {"campaign_id": made["id"], "prompt": "p"}, key=who.key)
    one_of_each(service, who)
    answer = service.ask("GET", "/api/v2/usage?format=csv", key=who.key)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    shown = usage(service, key=who.key)["items"]
    assert [(row["campaign"], *(int(row[name]) for name in COUNTS), int(row["bytes"])) for row in rows] == [
        (one["id"], *counts(one), one["bytes"]) for one in shown
    ]
    for kind in ("estimated", "actual", "reserved"):
        assert [float(row[f"{kind}_usd"]) for row in rows] == [one["cost_usd"][kind] for one in shown]
    assert [row["name"] for row in rows] == [
        f"'{one['name']}" if one["name"][0] in "=+-@" else one["name"] for one in shown
    ]
    assert sum(row["name"].startswith("'") for row in rows) == 4


def test_what_was_deleted_was_spent_all_the_same(service: Service) -> None:
    who = service.tenant()
    one_of_each(service, who)
    for one in service.ask("GET", "/api/v2/generations", key=who.key).json()["items"]:
        service.ask("POST", f"/api/v2/generations/{one['id']}/cancel", {}, key=who.key)
        if one["stage"] == "processing":
            service.failed(one["id"])
    before = {group: usage(service, f"group_by={group}")["items"] for group in GROUPS}
    for one in service.ask("GET", "/api/v2/generations", key=who.key).json()["items"][:2]:
        assert service.ask("DELETE", f"/api/v2/generations/{one['id']}").status == 204
    assert before == {group: usage(service, f"group_by={group}")["items"] for group in GROUPS}
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 204
    for _ in range(2):
        service.run(tidy.tidy(service.ctx))
    after = {group: usage(service, f"group_by={group}")["items"] for group in GROUPS}
    assert [one["name"] for one in after["campaign"]] == [None]
    for group, items in after.items():
        assert [one | {"name": None} for one in items] == [one | {"name": None} for one in before[group]]
    assert service.run(service.ctx.db.read(lambda tx: tx.all("SELECT * FROM balances"))) == []


def test_a_film_is_counted_by_its_length(service: Service) -> None:
    who = service.tenant()
    id = service.generate(who)["id"]

    async def end(tx: Any) -> None:
        now = service.ctx.now()
        await generations.move(tx, id, "submitting", now=now, claimed_at=now)
        await generations.move(tx, id, "storing", now=now, provider_id="p", outputs=["x"])
        file = {"file_name": "f.mp4", "content_type": "video/mp4", "bytes": 5, "sha256": "s", "duration_s": 2.0625}
        await generations.move(tx, id, "completed", now=now, **file)

    service.run(service.ctx.db.write(end))
    assert usage(service)["total"]["seconds"] == 2.063
    assert usage(service)["total"]["cost_usd"]["actual"] == 0.039  # nothing was billed otherwise: the estimate


def test_an_answer_that_would_be_too_long_is_refused_and_never_cut(service: Service) -> None:
    names = "client_id, campaign_id, day, kind, provider, model, key_id, status, deleted"
    sums = "generations, media_ms, bytes, estimated_micros, actual_micros"
    now = service.ctx.now()

    async def fill(tx: Any) -> None:
        for n in range(MOST_GROUPS + 1):
            await tx.run(
                f"INSERT INTO usage_days ({names}, {sums}) "  # noqa: S608
                "VALUES ('c', :id, :day, 'image', 'p', 'm', '', 'completed', 1, 1, 0, 1, 1, 1)",
                id=new_id(now),
                day=n,
            )

    service.run(service.ctx.db.write(fill))
    refused = service.ask("GET", "/api/v2/usage")
    assert refused.status == 422 and "10000 groups" in refused.json()["detail"]
    assert len(usage(service, "from=1970-01-02")["items"]) == MOST_GROUPS
    assert usage(service, "group_by=model")["total"]["counts"]["completed"] == MOST_GROUPS + 1


PRICED = """
[provider]
output_lifetime_s = 3600
output_hosts = []
file_limit_mb = 100
data_uri_limit_kb = 256
run_limit_s = 1800
[models.m]
kind = "image"
checked_at = 2026-11-01
source = "a page"
cancel_after_s = 60
fallback_prompt = "p"
prices = [{price}]
"""


@pytest.mark.parametrize(
    ("price", "estimated", "billed"),
    [
        ("{ per_output = 0.039 }", 39_000, None),
        ("{ per_predict_second = 0.0014, typical_s = 12 }", 16_800, 2_800),
    ],
)
def test_a_price_is_by_the_list_or_by_what_the_provider_reports(price: str, estimated: int, billed: int | None) -> None:
    model = parse({"p": PRICED.replace("{price}", price)}).models["p", "m"]
    assert (model.cost_micros({}), model.billed_micros(2.0, {}), model.billed_micros(None, {})) == (
        estimated,
        billed,
        None,
    )
    assert (str(model.checked_at), model.source) == ("2026-11-01", "a page")


@pytest.mark.parametrize("price", ["{ per_image = 1 }", "{ per_output = 1, per_second = 2 }"])
def test_a_model_has_one_price(price: str) -> None:
    with pytest.raises(SettingsError, match=r"p/models\.toml: m: (prices.0.per_image|the price 1 needs one of)"):
        parse({"p": PRICED.replace("{price}", price)})


def old_rows() -> list[dict[str, Any]]:
    """What a database may hold from before there were balances; some lengths lie between two milliseconds."""
    file = {"file_name": "f", "content_type": "video/mp4", "bytes": 7, "sha256": "s", "finished_at": 1}
    ends: list[dict[str, Any]] = [{"status": "queued"}, {"status": "queued", "cost_estimated_micros": None}]
    ends += [
        {"status": "completed", **file, "duration_s": length, "cost_actual_micros": 8} for length in (2.0625, 5.04)
    ]
    ends += [{"status": "completed", **file}, {"status": "canceled", "finished_at": 1}]
    ends += [{"status": "failed", "error_code": "x", "finished_at": 1, "possibly_charged": n} for n in (0, 1)]
    rows = []
    for number, end in enumerate(ends * 4):
        whose = {"client_id": "c", "campaign_id": f"k{number % 2}", "key_id": "key" if number % 3 else None}
        row = {"id": f"g{number}", "kind": "video", "provider": "p", "model": "m", "source": "{}", "params": "{}"}
        row |= {"metadata": "{}", "nonce": "n", "cost_estimated_micros": 5, "cost_actual_micros": None, **whose}
        row |= {"bytes": None, "duration_s": None, "possibly_charged": 0, "error_code": None, "finished_at": None}
        row |= {"file_name": None, "content_type": None, "sha256": None}
        rows.append(row | {"created_at": DAY_MS * (20_000 + number // 8) - 1, "due_at": 1} | end)
    return rows


async def fill(tx: Tx) -> None:
    await tx.run("INSERT INTO clients (id, name, created_at) VALUES ('c', 'c', 1)")
    await tx.run(
        "INSERT INTO campaigns (id, client_id, name, created_at) VALUES ('k0', 'c', 'k', 1), ('k1', 'c', 'k', 1)"
    )
    for row in old_rows():
        values = ", ".join(f":{name}" for name in row)
        await tx.run(f"INSERT INTO generations ({', '.join(row)}) VALUES ({values})", **row)  # noqa: S608


async def test_an_older_database_is_added_up_when_it_is_brought_up_to_date(tmp_path: Path) -> None:
    path, before = tmp_path / "old.db", [one for one in known() if one.version < 7]
    migrate(path, migrations=before, schema="\n".join(one.sql for one in before))
    db = await SqliteDb.open(path)
    await db.write(fill)
    await db.close()
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        assert list(of_money(connection)) == []
        tables = ("balances ORDER BY owner_id", "usage_days ORDER BY campaign_id, day, key_id, status")
        here = [[tuple(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables]  # noqa: S608
    assert [len(rows) for rows in here] == [3, 22]
    async with postgres() as connection:
        for one in before:
            await connection.execute(one.sql)
        await fill(PostgresTx(connection))
        for one in known()[len(before) :]:
            await connection.execute(one.sql)
        there = [[tuple(row) for row in await connection.fetch(f"SELECT * FROM {table}")] for table in tables]  # noqa: S608
    assert here == there
