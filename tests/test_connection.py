"""The database under the service: whole transactions, shared commits, and what is acknowledged stays."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import pytest
from transactions import twice

from backend.core.errors import OutOfSpace, SettingsError, Unavailable
from backend.core.ids import new_id
from backend.core.people import Client
from backend.db import clients
from backend.db.commits import SHARED_ROWS
from backend.db.connection import Tx
from backend.db.migrate import migrate
from backend.db.sqlite import READERS, SHARED_COMMIT, SqliteDb, sqlite_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "test.db")
    return tmp_path / "test.db"


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SqliteDb]:
    opened = await SqliteDb.open(path)
    yield opened
    await opened.close()


def insert(name: str, id: str | None = None):
    return lambda tx: clients.insert(tx, Client(id or new_id(1), name, 1))


async def names(db: SqliteDb) -> list[str]:
    return [row.name for row in await db.read(lambda tx: clients.page(tx, None, None, 1000))]


async def ask_writer(db: SqliteDb, pragma: str) -> Any:
    """One statement on the writing connection itself, outside every transaction."""
    return (await db._writer.run(lambda connection: connection.execute(f"PRAGMA {pragma}").fetchone()) or [None])[0]


async def listen(db: SqliteDb) -> list[str]:
    """What the writer is told from now on, transaction statements only."""
    said: list[str] = []
    keep = ("BEGIN", "COMMIT", "ROLLBACK")
    trace = lambda sql: said.append(sql) if sql.startswith(keep) else None  # noqa: E731
    await db._writer.run(lambda connection: connection.set_trace_callback(trace))
    return said


async def test_writes_that_wait_together_share_a_commit(db: SqliteDb) -> None:
    said = await listen(db)
    await asyncio.gather(*(db.write(insert(f"n{n}")) for n in range(200)))
    assert len(await names(db)) == 200
    assert said.count("COMMIT") == said.count("BEGIN IMMEDIATE") <= 200 // SHARED_COMMIT + 2 < 50


async def test_one_failing_write_is_undone_alone(db: SqliteDb) -> None:
    async def half(tx: Tx) -> None:
        await clients.insert(tx, Client("half", "half", 1))
        raise KeyError("no more")

    same = new_id(1)
    works = [insert("a"), half, insert("b", same), insert("twice", same), insert("c")]
    answers = await asyncio.gather(*(db.write(work) for work in works), return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        type(None),
        KeyError,
        type(None),
        sqlite3.IntegrityError,
        type(None),
    ]
    assert sorted(await names(db)) == ["a", "b", "c"]


async def test_a_transaction_that_waits_for_anything_else_is_refused_and_undone(db: SqliteDb) -> None:
    async def waits(tx: Tx) -> None:
        await clients.insert(tx, Client("x", "x", 1))
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waits for nothing"):
        await db.write(waits)
    with pytest.raises(RuntimeError, match="waits for nothing"):
        await db.read(waits_to_read)
    await db.write(insert("after"))
    assert await names(db) == ["after"]


async def waits_to_read(tx: Tx) -> None:
    await asyncio.sleep(0)


async def test_a_caller_that_is_cancelled_leaves_neither_a_lock_nor_half_a_write(db: SqliteDb, path: Path) -> None:
    for n in range(20):
        writing = asyncio.create_task(db.write(insert(f"left{n}")))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    await asyncio.wait_for(db.write(insert("last")), 5)
    assert len(await names(db)) == 21
    with sqlite3.connect(path, timeout=0, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    other.close()


async def test_a_caller_cancelled_while_reading_leaves_the_reader_usable(db: SqliteDb) -> None:
    for _ in range(9):
        reading = asyncio.create_task(names(db))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await db.write(insert("seen"))
    assert [await names(db) for _ in range(3)] == [["seen"]] * 3


async def test_a_slow_report_delays_no_other_read(db: SqliteDb) -> None:
    """Two of three readers are busy for as long as the test likes: every read finds the third one."""
    go_on, begun = Event(), Semaphore(0)

    async def report(tx: Tx) -> str:
        begun.release()
        assert go_on.wait(30)
        return "done"

    reports = [asyncio.create_task(db.read(report)) for _ in range(READERS - 1)]
    try:
        for _ in reports:
            assert await asyncio.to_thread(begun.acquire, timeout=30)
        for _ in range(3 * READERS):
            assert await asyncio.wait_for(names(db), 5) == []
    finally:
        go_on.set()
    assert await asyncio.gather(*reports) == ["done"] * len(reports)


async def test_a_read_nobody_waits_for_any_more_is_not_begun(db: SqliteDb) -> None:
    go_on, begun, ran = Event(), Semaphore(0), []

    async def report(tx: Tx) -> None:
        begun.release()
        assert go_on.wait(30)

    async def late(tx: Tx) -> None:
        ran.append("late")

    reports = [asyncio.create_task(db.read(report)) for _ in range(READERS)]
    try:
        for _ in reports:
            assert await asyncio.to_thread(begun.acquire, timeout=30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(db.read(late), 0.01)
    finally:
        go_on.set()
    await asyncio.gather(*reports)
    assert (await names(db), ran) == ([], [])


async def test_what_is_urgent_goes_first_in_the_order_it_came_and_the_rest_keeps_its_own(db: SqliteDb) -> None:
    order: list[str] = []

    def noted(name: str, urgent: bool) -> asyncio.Task[None]:
        async def work(tx: Tx) -> None:
            order.append(name)

        return asyncio.create_task(db.write(work, urgent=urgent))

    many = 2 * SHARED_COMMIT
    await asyncio.gather(*(noted(f"{kind}{n}", kind == "urgent") for n in range(many) for kind in ("usual", "urgent")))
    assert order == [f"{kind}{n}" for kind in ("urgent", "usual") for n in range(many)]


async def test_what_did_not_fit_into_a_commit_goes_first_into_the_next(db: SqliteDb) -> None:
    order: list[int] = []

    def large(number: int):
        async def work(tx: Tx) -> None:
            order.append(number)
            for _ in range(SHARED_ROWS):
                await tx.run("UPDATE event_clock SET last_id = last_id")

        return work

    await asyncio.gather(*(db.write(large(number)) for number in range(5)))
    assert order == list(range(5))


async def test_a_story_runs_each_work_twice_and_keeps_the_second_run(db: SqliteDb) -> None:
    """So a work that leaves something behind outside the database shows."""
    runs: list[str] = []

    async def work(tx: Tx) -> int:
        runs.append("x")
        await insert("".join(runs))(tx)
        return len(runs)

    with twice() as seen:
        assert await db.write(work) == 2
        with pytest.raises(KeyError):
            await db.write(lambda tx: {}["nothing"])
    assert (len(seen), await names(db)) == (2, ["xx"])


async def test_a_file_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        await SqliteDb.open(tmp_path / "nowhere" / "test.db")
    left = [thread for thread in threading.enumerate() if thread.name == "sqlite"]
    for thread in left:
        thread.join(10)  # it has said that it ends, and may still be about to
    assert not any(thread.is_alive() for thread in left)


async def test_a_reader_sees_one_moment_however_long_it_looks(db: SqliteDb, path: Path) -> None:
    def elsewhere() -> None:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("INSERT INTO clients (id, name, created_at) VALUES ('z', 'z', 1)")
        other.close()

    async def look_twice(tx: Tx) -> tuple[int, int]:
        before = len(await clients.page(tx, None, None, 10))
        elsewhere()
        return before, len(await clients.page(tx, None, None, 10))

    assert await db.read(look_twice) == (0, 0)
    assert await names(db) == ["z"]


async def test_a_reader_cannot_write(db: SqliteDb) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await db.read(insert("x"))
    assert await names(db) == []


async def test_a_full_disk_is_out_of_space_for_all_that_waited_and_ends_when_there_is_room(db: SqliteDb) -> None:
    pages = await ask_writer(db, "page_count")
    await ask_writer(db, f"max_page_count = {pages}")
    works = [db.write(insert("x" * 200_000)) for _ in range(3)]
    answers = await asyncio.gather(*works, return_exceptions=True)
    assert [type(answer) for answer in answers] == [OutOfSpace] * 3
    assert not await db._writer.run(lambda connection: connection.in_transaction)
    await ask_writer(db, "max_page_count = 100000")
    await db.write(insert("room"))
    assert await names(db) == ["room"]


async def test_a_database_that_somebody_else_holds_is_unavailable_and_then_fine(db: SqliteDb, path: Path) -> None:
    await ask_writer(db, "busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as raised:
        await db.write(insert("x"))
    assert raised.value.retry_after == 1
    other.execute("ROLLBACK")
    other.close()
    await db.write(insert("y"))
    assert await names(db) == ["y"]


async def test_foreign_keys_hold_and_power_loss_is_reckoned_with(db: SqliteDb) -> None:
    async def orphan(tx: Tx) -> None:
        await tx.run("INSERT INTO campaigns (id, client_id, name, created_at) VALUES ('c', 'nobody', 'n', 1)")

    with pytest.raises(sqlite3.IntegrityError):
        await db.write(orphan)
    for pragma, value in (("foreign_keys", 1), ("synchronous", 2), ("journal_mode", "wal")):
        assert await ask_writer(db, pragma) == value


async def test_closing_finishes_what_was_begun(path: Path) -> None:
    db = await SqliteDb.open(path)
    writing = [asyncio.create_task(db.write(insert(f"n{n}"))) for n in range(100)]
    await asyncio.sleep(0)
    await db.close()
    await asyncio.gather(*writing)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT COUNT(*) FROM clients").fetchone() == (100,)
    other.close()


KILLED = """
import asyncio, sys
from pathlib import Path
from backend.db import clients
from backend.db.sqlite import SqliteDb
from backend.core.ids import new_id
from backend.core.people import Client

async def main():
    db = await SqliteDb.open(Path(sys.argv[1]))
    async def one(n):
        while True:
            id = new_id(n)
            await db.write(lambda tx, id=id: clients.insert(tx, Client(id, "n", 1)))
            sys.stdout.write(id + "\\n")
            sys.stdout.flush()
    await asyncio.gather(*(one(n) for n in range(20)))

asyncio.run(main())
"""


def test_what_was_acknowledged_before_kill_9_is_there_after_it(path: Path) -> None:
    acknowledged: set[str] = set()
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            acknowledged |= {writer.stdout.readline().strip() for _ in range(300)}
            writer.kill()
            acknowledged |= {line.strip() for line in writer.stdout if line.endswith("\n")}
    with sqlite3.connect(path) as other:
        kept = {id for (id,) in other.execute("SELECT id FROM clients")}
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()
    assert len(acknowledged) >= 900
    assert acknowledged <= kept


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///", "sqlite://host/x", "data.db", ""])
def test_an_address_that_is_no_sqlite_file_is_a_setting_to_change(url: str) -> None:
    with pytest.raises(SettingsError):
        sqlite_path(url)
