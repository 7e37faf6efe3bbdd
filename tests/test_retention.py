"""What is old is forgotten in small bites; what is unfinished, unhandled or still running stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, png, running
from pydantic import ValidationError

from backend.config import Settings
from backend.context import Context
from backend.core.ids import new_id
from backend.core.outcomes import ProviderWebhook
from backend.db import events, generation_rows, generations, idempotency_keys, provider_webhooks
from backend.db.connection import Tx, Work
from backend.upkeep import tidy

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("retention"), history_days=30) as found:
        yield found


def later(service: Service, days: float) -> Context:
    """The service's context as it will be."""
    return replace(service.ctx, now=lambda: service.ctx.now() + int(days * DAY_MS))


def write(service: Service, work: Callable[[Tx], Awaitable[Any]]) -> Any:
    return service.run(service.ctx.db.write(work))


def count(service: Service, table: str, where: str = "1 = 1", **params: Any) -> int:
    sql = f"SELECT COUNT(*) AS n FROM {table} WHERE {where}"  # noqa: S608
    row = service.run(service.ctx.db.read(lambda tx: tx.one(sql, **params)))
    return int(row["n"])


def told(service: Service, id: str, name: str, *, handled: bool = True) -> None:
    """A webhook that came for this generation just now."""
    now = service.ctx.now()
    delivery = ProviderWebhook(new_id(now), "replicate", id, name, b"{}", now)

    async def work(tx: Tx) -> None:
        await provider_webhooks.insert(tx, delivery)
        if handled:
            await provider_webhooks.mark_handled(tx, delivery.id, now, "late")

    write(service, work)


def test_events_and_webhooks_are_kept_for_history_days_and_those_of_unfinished_work_longer(service: Service) -> None:
    who = service.tenant()
    done, going = service.generate(who)["id"], service.generate(who)["id"]
    service.completed(done, png())
    service.submitted(going)
    told(service, done, "handled")
    told(service, done, "unhandled", handled=False)
    told(service, going, "handled")
    held = {"id": done, "other": going}

    def left(table: str) -> tuple[int, int]:
        return count(service, table, "generation_id = :id", id=held["id"]), count(
            service, table, "generation_id = :id", id=held["other"]
        )

    assert left("events") == (2, 1)
    service.run(tidy.tidy(later(service, 29.9)))
    assert (left("events"), left("deliveries")) == ((2, 1), (2, 1))
    service.run(tidy.tidy(later(service, 30.1)))
    assert (left("events"), left("deliveries")) == ((0, 1), (1, 1))
    assert count(service, "deliveries", "generation_id = :id AND handled_at IS NULL", id=done) == 1
    assert service.ask("GET", f"/api/v2/generations/{done}", key=who.key).json()["status"] == "completed"


def test_a_late_word_about_what_was_forgotten_changes_nothing_and_tells_nobody_again(service: Service) -> None:
    who = service.tenant()
    done = service.generate(who)["id"]
    service.completed(done, png())
    service.run(tidy.tidy(later(service, 31)))
    told(service, done, "again")
    assert count(service, "events", "generation_id = :id", id=done) == 0
    assert service.ask("GET", f"/api/v2/images/{done}/data", key=who.key).status == 200


class Counting:
    """A database that notes how many rows each transaction changed."""

    def __init__(self, service: Service) -> None:
        self._db = service.ctx.db
        self.changed: list[int] = []

    async def write(self, work: Work[Any], *, urgent: bool = False) -> Any:
        noting = Noting()
        answer = await self._db.write(lambda tx: work(noting.over(tx)), urgent=urgent)
        self.changed.append(noting.changed)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class Noting:
    def __init__(self) -> None:
        self.changed = 0

    def over(self, tx: Tx) -> Any:
        self.changed, self._tx = 0, tx
        return self

    async def run(self, sql: str, **params: Any) -> int:
        changed = await self._tx.run(sql, **params)
        self.changed += changed
        return changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)


def test_a_large_history_goes_in_small_bites_within_one_round(service: Service) -> None:
    who = service.tenant()
    done = service.generate(who)["id"]
    service.completed(done, png())
    many = 3 * tidy.BITE + 1
    for number in range(many):
        told(service, done, f"webhook {number}")
    answers = [f"answer {number}" for number in range(many)]

    async def work(tx: Tx) -> None:
        for name in answers:
            await idempotency_keys.put(tx, "key:test", name, "h", service.ctx.now(), status=202, body="{}")

    write(service, work)
    db = Counting(service)
    service.run(tidy.tidy(replace(later(service, 31), db=db)))  # type: ignore[arg-type]
    assert count(service, "deliveries", "generation_id = :id", id=done) == 0
    assert count(service, "idempotency_keys", "scope = 'key:test'") == 0
    assert sum(db.changed) >= 2 * many and max(db.changed) <= 2 * tidy.BITE <= 200


def test_an_answer_is_remembered_for_three_days_from_when_it_was_given(service: Service) -> None:
    now, scope = service.ctx.now(), "key:three days"
    write(service, lambda tx: idempotency_keys.put(tx, scope, "old", "h", now - 2 * DAY_MS, running_until=now - DAY_MS))
    write(service, lambda tx: idempotency_keys.put(tx, scope, "old", "h", now, status=201, body="{}"))
    write(service, lambda tx: idempotency_keys.put(tx, scope, "other", "h", now - 2 * DAY_MS, status=201, body="{}"))
    service.run(tidy.tidy(later(service, 2.9)))
    assert count(service, "idempotency_keys", "scope = :scope", scope=scope) == 1
    service.run(tidy.tidy(later(service, 3.1)))
    assert count(service, "idempotency_keys", "scope = :scope", scope=scope) == 0


def test_a_request_that_still_runs_is_not_forgotten_however_old_it_is(service: Service) -> None:
    now, scope = service.ctx.now(), "key:running"
    write(service, lambda tx: idempotency_keys.put(tx, scope, "k", "h", now - 9 * DAY_MS, running_until=now + 60_000))
    service.run(tidy.tidy(service.ctx))
    assert count(service, "idempotency_keys", "scope = :scope", scope=scope) == 1
    service.run(tidy.tidy(later(service, 0.1)))
    assert count(service, "idempotency_keys", "scope = :scope", scope=scope) == 0


@pytest.mark.parametrize("days", [0, -1, 3651, "soon"])
def test_history_is_kept_from_a_day_to_ten_years(days: object) -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, history_days=days)


async def test_what_was_unfinished_at_the_upgrade_keeps_what_it_starts_from(tmp_path: Path) -> None:
    """The second migration reads the sources out of rows that the first schema wrote."""
    from test_parity import id_of, made

    from backend.db.migrate import migrate
    from backend.db.sqlite import SqliteDb
    from backend.db.versions import known

    path, every = tmp_path / "old.db", known()
    migrate(path, migrations=every[:1], schema=every[0].sql)
    start = {"asset_id": id_of(40), "video_id": id_of(1), "frame": "last", "end_image": {"image_id": id_of(2)}}
    db = await SqliteDb.open(path)

    async def as_the_first_version(tx: Tx) -> None:
        await tx.run("INSERT INTO clients (id, name, created_at) VALUES ('c1', 'c', 1)")
        await tx.run("INSERT INTO campaigns (id, client_id, name, created_at) VALUES ('k1', 'c1', 'k', 1)")
        for row in (made(1), made(2), made(3, source=start), made(4, source={"image_id": id_of(2)})):
            there = {column["name"] for column in await tx.all("PRAGMA table_info(generations)")}
            names = [name for name in generation_rows.NAMES if name in there]
            marks = ", ".join(f":{name}" for name in names)
            await tx.run(
                f"INSERT INTO generations ({', '.join(names)}) VALUES ({marks})",  # noqa: S608
                **{name: generation_rows.written(getattr(row, name, None)) for name in names},
            )
        await tx.run("UPDATE generations SET status = 'canceled', finished_at = 1 WHERE id = :id", id=id_of(4))

    await db.write(as_the_first_version)
    await db.close()
    migrate(path, migrations=every)
    db = await SqliteDb.open(path)
    found = await db.read(lambda tx: tx.all("SELECT generation_id, source_id, campaign_id FROM sources ORDER BY 2"))
    await db.close()
    wanted = [(id_of(3), id_of(1), "k1"), (id_of(3), id_of(2), "k1"), (id_of(3), id_of(40), None)]
    assert [tuple(row) for row in found] == wanted


def test_an_event_is_forgotten_by_its_own_age_and_not_by_its_generations(service: Service) -> None:
    who = service.tenant()
    done = service.generate(who)["id"]
    service.completed(done, png())
    row = service.run(service.ctx.db.read(lambda tx: generations.get(tx, done)))
    assert row
    before = service.ctx.now() + 1000
    assert write(service, lambda tx: events.prune(tx, row.created_at, 1000)) == 0
    assert write(service, lambda tx: events.prune(tx, before, 1)) == 1
