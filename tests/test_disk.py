"""A disk that cannot be believed ends the service, loudly and soon; a full one only makes it wait."""

from __future__ import annotations

import asyncio
import errno
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from auditor import audit, creates_of
from crashes import strace
from emulating import Provider, png, until
from face import FINAL
from gateway import Gateway, new_gateway
from workshop import working

from backend.cli.processes import environment
from backend.core.errors import OutOfSpace, StorageFull, Unavailable
from backend.core.ids import new_id
from backend.core.people import Client
from backend.db import clients
from backend.db.connection import Tx
from backend.db.migrate import migrate
from backend.db.sqlite import SqliteDb
from backend.disk import faults, room
from backend.storage import folder as storage_folder

pytestmark = pytest.mark.story

ENDS_WITHIN_S = 6


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a running service would be told of its disk; believed anew afterwards."""
    monkeypatch.setattr(faults, "_declared", [])
    said: list[str] = []
    with faults.watched(said.append):
        yield said


@pytest.fixture
def service(tmp_path: Path, provider: Provider) -> Iterator[Gateway]:
    service = new_gateway(tmp_path, provider)
    try:
        service.start()
        service.begin()
        yield service
        assert service.stop() == 0
        audit(tmp_path, provider.ledger, service.accepted)
    finally:
        service.abandon()
        service.close()


def restart_under(service: Gateway, command: list[str]) -> None:
    assert service.stop() == 0
    service.start(command)


def events(service: Gateway, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def ask_until_refused(service: Gateway) -> tuple[list[str], httpx.Response]:
    """The ids of what was accepted before the answer that was no 202."""
    accepted: list[str] = []
    for number in range(200):
        answer = service.try_to_ask(prompt=f"fox {number}")
        if answer.status_code != 202:
            return accepted, answer
        accepted.append(answer.json()["id"])
    raise AssertionError("the disk never failed")


def says_why_and_ends(service: Gateway) -> None:
    """503 everywhere at once, and the process is gone in a few seconds with one line and one sentence."""
    assert service.process
    ready = service.http.get("/readyz")
    assert ready.status_code == 503 and ready.json()["checks"]["disk"]["why"]
    assert service.try_to_ask(prompt="too late").status_code == 503
    assert service.process.wait(ENDS_WITHIN_S) == 1
    assert len(events(service, "disk_failed")) == 1
    assert service.log().count("reelhook: the disk failed, so the service ends: ") == 1


def is_settled(service: Gateway, provider: Provider, id: str) -> bool:
    """Ended, or claimed by a commit that failed: nothing was sent then, which only the deadline tells."""
    now = service.get(id)
    unsent = now["stage"] == "unclear" and not creates_of(provider.ledger, id)
    return unsent or now["status"] in FINAL


def let_the_deadline_pass(service: Gateway) -> None:
    """For claims that nothing followed: a quarter of an hour in a moment."""
    assert service.stop() == 0
    with closing(sqlite3.connect(service.folder / "reelhook.db")) as connection, connection:
        connection.execute("UPDATE generations SET deadline_at = 1, due_at = 1 WHERE status = 'unclear'")
    service.start()


@pytest.mark.parametrize("error", ["EIO", "EROFS"])
def test_a_database_that_cannot_be_synced_ends_the_service_and_a_good_disk_goes_on(
    service: Gateway, provider: Provider, error: str
) -> None:
    restart_under(service, strace.required_under("fdatasync", f"error={error}", "12+"))
    accepted, refused = ask_until_refused(service)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"] and "/" not in refused.json()["detail"]
    says_why_and_ends(service)

    service.start()
    assert service.http.get("/readyz").status_code == 200
    service.accepted += accepted
    until(lambda: all(is_settled(service, provider, id) for id in accepted))
    let_the_deadline_pass(service)
    for id in accepted:
        service.ended(id)
    service.ended(service.ask()["id"], "completed")


def test_a_media_folder_that_cannot_be_synced_ends_the_service_and_loses_no_output(service: Gateway) -> None:
    restart_under(service, strace.required_under("fsync", "error=EIO", "1+"))
    ids = [service.ask()["id"]]
    until(lambda: service.http.get("/readyz").json()["checks"].get("disk", {}).get("why"))
    says_why_and_ends(service)

    service.start()
    service.accepted += ids
    for id in ids:
        service.ended(id, "completed")


def test_an_upload_that_cannot_be_synced_is_refused_and_ends_the_service(service: Gateway) -> None:
    restart_under(service, strace.required_under("fsync", "error=EIO", "1+"))
    answer = service.http.post("/api/v2/assets", files={"file": ("start.png", png())})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    says_why_and_ends(service)
    service.start()


@pytest.mark.parametrize(("calls", "error"), [("pwrite64", "ENOSPC"), ("pwrite64,fsync", "EDQUOT")])
def test_a_disk_without_room_is_no_failing_one_and_the_same_process_goes_on(
    service: Gateway, calls: str, error: str
) -> None:
    strace.required_under(calls, "", "")
    service.ended(service.ask()["id"], "completed")  # nothing else is written when the trace ends
    with strace.injecting(service, calls, f"error={error}", "1+"):
        refused = service.try_to_ask(prompt="no room")
        assert refused.status_code == 507
    service.ended(service.ask()["id"], "completed")
    assert not events(service, "disk_failed")


def test_a_limit_on_the_length_of_files_is_no_failing_disk(service: Gateway) -> None:
    """As `ulimit -f` sets it; the database's log comes to it first."""
    restart_under(service, ["sh", "-c", 'ulimit -f 1200; exec "$@"', "sh"])
    accepted, refused = ask_until_refused(service)
    assert accepted and refused.status_code == 507
    assert not events(service, "disk_failed")
    assert service.http.get("/healthz").status_code == 200
    service.kill()
    service.start()
    service.accepted += accepted
    for id in accepted:
        service.ended(id)


async def test_nothing_is_put_into_a_folder_for_temporary_files_which_may_be_full(tmp_path: Path) -> None:
    migrate(tmp_path / "test.db")
    db = await SqliteDb.open(tmp_path / "test.db")

    async def where(tx: Tx) -> int:
        return int((await tx.one("PRAGMA temp_store"))[0])

    try:
        assert [await db.write(where), *[await db.read(where) for _ in range(3)]] == [2] * 4  # 2: memory
    finally:
        await db.close()


CASES = [
    (sqlite3.SQLITE_IOERR, 1034, "disk I/O error"),
    (sqlite3.SQLITE_IOERR, 266, "disk I/O error"),
    (sqlite3.SQLITE_CORRUPT, 11, "database disk image is malformed"),
    (sqlite3.SQLITE_NOTADB, 26, "file is not a database"),
]


def failing(code: int, text: str) -> sqlite3.DatabaseError:
    """What SQLite raises for a code."""
    error = sqlite3.OperationalError(text) if code & 0xFF == sqlite3.SQLITE_IOERR else sqlite3.DatabaseError(text)
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_OF_A_TEST"
    return error


@pytest.mark.parametrize(("primary", "code", "text"), CASES)
@pytest.mark.parametrize("way", ["write", "read"])
async def test_a_database_file_that_cannot_be_believed_is_declared_and_takes_nothing_more(
    told: list[str], tmp_path: Path, primary: int, code: int, text: str, way: str
) -> None:
    assert code & 0xFF == primary
    migrate(tmp_path / "test.db")
    db = await SqliteDb.open(tmp_path / "test.db")

    async def fails(tx: Tx) -> None:
        raise failing(code, text)

    async def waits(tx: Tx) -> None:
        await clients.insert(tx, Client(new_id(1), "late", 1))

    try:
        with pytest.raises(Unavailable, match="The disk failed"):
            await getattr(db, way)(fails)
        answers = await asyncio.gather(*(db.write(waits) for _ in range(40)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        assert await db.read(lambda tx: clients.page(tx, None, None, 10)) == []
    finally:
        await db.close()
    assert told == [f"test.db: {text} (SQLITE_OF_A_TEST)"]


async def test_an_exhausted_quota_is_no_failing_disk_though_sqlite_calls_it_an_io_error(
    told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(tmp_path / "test.db")
    db = await SqliteDb.open(tmp_path / "test.db")

    async def fails(tx: Tx) -> None:
        raise failing(778, "disk I/O error")

    def no_quota(_: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    try:
        with monkeypatch.context() as spoilt:
            spoilt.setattr("os.fsync", no_quota)
            with pytest.raises(OutOfSpace):
                await db.write(fails)
        await db.write(lambda tx: clients.insert(tx, Client(new_id(1), "after", 1)))
    finally:
        await db.close()
    assert told == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENODEV])
def test_a_file_that_cannot_be_written_is_declared(told: list[str], code: int) -> None:
    with pytest.raises(Unavailable), room.needed():
        raise OSError(code, "it fails")
    assert len(told) == 1 and "it fails" in told[0]
    with pytest.raises(Unavailable), room.needed():
        raise OSError(code, "it fails again")
    assert len(told) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_file_without_room_is_not(told: list[str], code: int) -> None:
    with pytest.raises(StorageFull), room.needed():
        raise OSError(code, "no room")
    assert told == [] and faults.reason() is None


def test_a_command_that_writes_to_a_bad_place_just_says_so() -> None:
    with pytest.raises(OSError, match="read-only"), room.needed():
        raise OSError(errno.EROFS, "read-only")
    assert faults.reason() is None


def test_readiness_turns_false_with_the_fault_and_asks_the_disk_nothing(
    told: list[str], tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(tmp_path, provider, worker=False) as bench:

        def fails(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as spoilt:
            spoilt.setattr(storage_folder, "_sync_file", fails)
            assert bench.http.post("/api/v2/assets", files={"file": ("start.png", png())}).status_code == 503
        ready = bench.http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"] == {"disk": {"ok": False, "why": told[0]}}
        assert bench.http.get("/healthz").status_code == 200


DYING = """
from backend import worker
from backend.cli import main

async def dies(self, lane):
    if lane.name == "collect":
        raise RuntimeError("nobody foresaw this")
    await self.stopping.wait()

worker.Worker._tend = dies
main()
"""


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["worker"]])
def test_a_worker_that_dies_takes_the_service_with_it(tmp_path: Path, command: list[str]) -> None:
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/reelhook.db", "STORAGE_URL": f"file:{tmp_path}/media"}
    done = subprocess.run(
        [sys.executable, "-c", DYING, *command],
        cwd=tmp_path,
        env=environment(settings) | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "reelhook: the worker ended by itself, so the service ends too" in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    (died,) = [line for line in lines if line["event"] == "worker_died"]
    assert "nobody foresaw this" in died["exception"]
