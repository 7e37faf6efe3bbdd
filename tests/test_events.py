"""Events: their ids grow in the order of the commits, whatever the clock does and whatever is deleted."""

from __future__ import annotations

from pathlib import Path

from backend.core import ids
from backend.core.events import Event
from backend.db import events, feed
from backend.db.connection import Tx
from backend.db.migrate import migrate
from backend.db.sqlite import SqliteDb

YEAR_MS = 365 * 86_400_000
NOW = 1_800_000_000_000


async def warned(db: SqliteDb, now: int) -> Event:
    async def work(tx: Tx) -> Event:
        before = await events.last_id(tx)
        await events.warn(tx, "client", None, {"budget_usd": 1}, now)
        ((made, _),) = await feed.page(tx, feed.Topic(), before, 10)
        return made

    return await db.write(work)


async def test_ids_grow_when_the_clock_steps_back_and_when_the_last_event_is_gone(tmp_path: Path) -> None:
    migrate(tmp_path / "test.db")
    db = await SqliteDb.open(tmp_path / "test.db")
    first = await warned(db, NOW + YEAR_MS)
    second = await warned(db, NOW)
    await db.write(lambda tx: tx.run("DELETE FROM events"))
    third = await warned(db, NOW)
    assert first.id < second.id < third.id
    assert third.created_at == NOW
    await db.close()


def test_the_next_id_after_one_of_a_later_time_is_an_id_and_hardly_larger() -> None:
    last = ids.new_id(NOW + 2 * YEAR_MS)
    following = ids.after(last, NOW)
    assert ids.is_id(following) and last < following
    assert following[:13] == last[:13]  # of the same millisecond
    assert ids.after("", NOW)[14] == "7"
