"""`reelhook backup` while the service writes, `reelhook restore` where there is nothing: nothing lost or paid twice."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import commands
import pytest
from auditor import audit, creates_of, witness
from emulating import TINY, Provider, emulating, png, until
from gateway import Gateway, gateway, new_gateway
from workshop import Workshop, working

from backend.backup import disk, restoring, taking
from backend.backup.partial import partial_folder
from backend.cli.processes import environment
from backend.config import Settings
from backend.core import ids
from backend.core.errors import ReelhookError
from backend.db import claims, snapshot
from backend.db.migrate import migrate
from backend.db.versions import known
from backend.steps import adopt
from backend.upkeep import after_restore, orphans

pytestmark = pytest.mark.story

Done = subprocess.CompletedProcess[str]
UNSENT = ("queued", "waiting", "submitting")


def command(*arguments: object, **settings: str) -> Done:
    """One command as a process of its own."""
    return commands.run_text(*arguments, environment=environment(settings))


def back_up(settings: dict[str, str], path: Path, *options: str) -> Any:
    done = command("backup", path, "--json", *options, **settings)
    assert done.returncode == 0, done.stderr
    assert_whole(path)
    return json.loads(done.stdout)


def restore(settings: dict[str, str], path: Path, *options: str) -> Any:
    done = command("restore", path, "--json", *options, **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(done: Done, words: str) -> None:
    """It failed with one sentence that says this, and nothing else."""
    assert (done.returncode, done.stdout) == (1, ""), done
    assert words in done.stderr and done.stderr.startswith("reelhook: ") and done.stderr.count("\n") == 1, done.stderr


def place(folder: Path) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite:///{folder}/reelhook.db", "STORAGE_URL": f"file:{folder}/media"}


def settings_of(folder: Path) -> Settings:
    return Settings(_env_file=None, **{name.lower(): value for name, value in place(folder).items()})


def assert_whole(path: Path) -> None:
    """As an operator would see it, without any of our code."""
    told = subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=path, capture_output=True)
    assert (told.returncode, told.stdout, told.stderr) == (0, b"", b"")
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert files - {line[66:] for line in (path / "SHA256SUMS").read_text().splitlines()} == {"SHA256SUMS"}


def rows(folder: Path, columns: str = "id, status") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "reelhook.db")) as connection:
        return connection.execute(f"SELECT {columns} FROM generations ORDER BY id").fetchall()  # noqa: S608


@contextmanager
def audited(service: Gateway, provider: Provider) -> Iterator[Gateway]:
    """A running service, audited at the end with what the provider did for the rows that it has then."""
    try:
        service.start()
        yield service
        assert service.stop() == 0
        ids = {id for id, _ in rows(service.folder)}
        ledger = provider.ledger
        ledger["creates"] = [create for create in ledger["creates"] if create["webhook"].split("/")[-2] in ids]
        audit(service.folder, ledger, service.accepted)
    finally:
        service.abandon()
        service.close()


@contextmanager
def gone_on(folder: Path, provider: Provider, backup: Path, *options: str) -> Iterator[tuple[Gateway, Any]]:
    """The service on a restored backup, audited at the end."""
    folder.mkdir()
    service = new_gateway(folder, provider)
    told = restore(service.settings, backup, *options)
    witness(folder)
    with audited(service, provider):
        yield service, told


def all_end(service: Gateway, within_s: float = 60) -> set[str]:
    """Wait for every generation there is; how they ended."""
    return {service.ended(id, within_s=within_s)["status"] for id, _ in rows(service.folder)}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a service leaves that made three images and two videos, one of them from the frame of an asset."""
    folder = tmp_path_factory.mktemp("studio")
    with emulating() as provider, gateway(folder, provider) as service:
        asked = service.ask_many(3)
        asked.append(service.ask("video", asset_id=service.upload(png()))["id"])
        asked.append(service.ask("video", prompt="kites")["id"])
        for id in asked:
            service.ended(id, "completed")
    return folder


@pytest.fixture(scope="module")
def backup(studio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backups") / "monday"
    back_up(place(studio), path)
    return path


@pytest.fixture
def copied(backup: Path, tmp_path: Path) -> Path:
    """A backup of the test's own, to be spoiled."""
    return Path(shutil.copytree(backup, tmp_path / "copied"))


@dataclass
class Load:
    """Somebody who asks, uploads and deletes as fast as the service answers, until told to stop."""

    service: Gateway
    accepted: list[str]
    stopped: threading.Event

    def run(self) -> None:
        number = 0
        while not self.stopped.wait(0.02):
            number += 1
            asked = self.service.ask("video" if number % 9 == 0 else "image", prompt=f"under load {number}")
            self.accepted.append(asked["id"])
            if number % 7 == 0:
                self.service.upload(png(colour=f"#{number:06x}"))
            if number % 5 == 0:
                self.delete(self.accepted[0])

    def delete(self, id: str) -> None:
        if self.service.http.delete(f"/api/v2/generations/{id}").status_code == 204:
            self.accepted.remove(id)


@contextmanager
def under_load(service: Gateway) -> Iterator[None]:
    load = Load(service, service.accepted, threading.Event())
    thread = threading.Thread(target=load.run)
    thread.start()
    try:
        yield
    finally:
        load.stopped.set()
        thread.join(30)


def test_backups_taken_under_load_are_whole_and_go_on_without_paying_twice(tmp_path: Path) -> None:
    backups = [tmp_path / f"backup-{number}" for number in range(2)]
    slow = replace(TINY, image_s=0.3, video_s=0.5)
    with emulating(slow) as provider:
        (tmp_path / "first").mkdir()
        with audited(new_gateway(tmp_path / "first", provider, MAX_IN_FLIGHT="6"), provider) as service:
            service.begin()
            with under_load(service):
                for path in backups:
                    before = len(service.accepted)
                    until(lambda before=before: len(service.accepted) > before + 6)
                    told = back_up(service.settings, path)
                    assert told["lost"] == [] and told["counts"]["unfinished"] > 0
            for id in service.accepted:
                service.ended(id, within_s=60)
        created = len(provider.ledger["creates"])
        for number, path in enumerate(backups):
            with gone_on(tmp_path / f"again-{number}", provider, path) as (service, _):
                assert all_end(service) <= {"completed"}
            assert len(provider.ledger["creates"]) == created


def test_what_was_waiting_in_a_backup_and_sent_since_is_found_and_not_sent_again(tmp_path: Path) -> None:
    with emulating() as provider:
        (tmp_path / "first").mkdir()
        with gateway(tmp_path / "first", provider) as service:
            provider.spoil({"kind": "create_429", "retry_after": 1})
            service.accepted += [service.ask("video", prompt="kites")["id"], *service.ask_many(3)]
            back_up(service.settings, tmp_path / "backup")
            unsent = [id for id, status in rows(tmp_path / "backup") if status in UNSENT]
            provider.spoil()
            for id in service.accepted:
                service.ended(id, "completed")
        created = len(provider.ledger["creates"])
        assert len(unsent) == 5 and sum(create["created"] for create in provider.ledger["creates"]) == 5
        with gone_on(tmp_path / "again", provider, tmp_path / "backup") as (service, told):
            assert told["held"] == len(unsent)
            assert all_end(service) == {"completed"}
        assert len(provider.ledger["creates"]) == created


@pytest.fixture
def unsent(tmp_path: Path) -> Iterator[tuple[Provider, Path]]:
    """A backup with an image and a video that no provider ever took, of a service that was killed."""
    with emulating() as provider:
        (tmp_path / "first").mkdir()
        service = new_gateway(tmp_path / "first", provider)
        try:
            service.start()
            service.begin()
            provider.spoil({"kind": "create_429", "retry_after": 3600})
            service.ask("video", prompt="kites")
            until(lambda: provider.ledger["creates"])
            until(lambda: {status for _, status in rows(service.folder)} == {"waiting", "queued"})
            service.kill()
            assert (service.folder / "reelhook.db-wal").stat().st_size
            back_up(service.settings, tmp_path / "backup")
        finally:
            service.abandon()
            service.close()
        provider.spoil()
        with closing(sqlite3.connect(tmp_path / "first" / "reelhook.db")) as connection:
            assert connection.execute("SELECT COUNT(*) FROM providers").fetchone() == (1,)
        yield provider, tmp_path / "backup"


def test_what_was_never_sent_ends_as_unknown_and_may_be_retried(tmp_path: Path, unsent: tuple[Provider, Path]) -> None:
    provider, backup = unsent
    before = len(provider.ledger["creates"])
    with gone_on(tmp_path / "again", provider, backup) as (service, told):
        assert told["held"] == 2
        until(lambda: {service.stage(id) for id, _ in rows(service.folder)} == {"unclear"})
        until(lambda: provider.ledger["lists"] >= 2)
        assert service.stop() == 0
        with closing(sqlite3.connect(service.folder / "reelhook.db")) as connection, connection:
            connection.execute("UPDATE generations SET deadline_at = 1, due_at = 1 WHERE status = 'unclear'")
            connection.execute("DELETE FROM providers")
        service.start()
        assert all_end(service) == {"failed"} and len(provider.ledger["creates"]) == before
        assert {*rows(service.folder, "error_code, possibly_charged")} == {("submit_unknown", 1)}
        video = next(id for id, kind in rows(service.folder, "id, kind") if kind == "video")
        service.ended(service.retry(video)["id"], "completed")


def test_resume_sends_what_was_waiting_once(tmp_path: Path, unsent: tuple[Provider, Path]) -> None:
    provider, backup = unsent
    (tmp_path / "again").mkdir()
    service = new_gateway(tmp_path / "again", provider)
    assert restore(service.settings, backup, "--resume")["held"] == 0
    assert sorted(status for _, status in rows(service.folder)) == ["queued", "waiting"]
    with closing(sqlite3.connect(service.folder / "reelhook.db")) as connection, connection:
        connection.execute("DELETE FROM providers")
        connection.execute("UPDATE generations SET due_at = 1")
    try:
        service.start()
        assert all_end(service) == {"completed"}
    finally:
        service.abandon()
        service.close()
    for id, _ in rows(service.folder):
        assert sum(create["created"] for create in creates_of(provider.ledger, id)) == 1


def test_a_prediction_made_long_after_the_backup_is_adopted_and_not_stopped(
    bench: Workshop, provider: Provider
) -> None:
    """The backup is a day old; what was queued in it was sent a moment ago and is still running."""
    provider.spoil({"kind": "stuck"})
    id = bench.ask()["id"]
    row = bench.row(id)
    webhook = f"{bench.origin}/webhooks/replicate/{id}/{row.nonce}"
    made = provider.create(body={"webhook": webhook, "webhook_events_filter": ["completed"]}).json()
    assert bench.run(after_restore.hold_unsent(bench.ctx, bench.clock() - 86_400_000)) == 1
    held = bench.row(id)
    assert held.status == "unclear" and held.claimed_at is not None and held.claimed_at < row.created_at
    bench.look("unclear")
    assert (bench.row(id).status, bench.row(id).provider_id) == ("processing", made["id"])
    bench.forward(11)
    bench.look("processing")
    assert bench.row(id).status == "processing" and provider.ledger["cancels"] == []
    bench.finished = False


def test_a_source_that_fails_does_not_end_what_was_held_beside_it(bench: Workshop) -> None:
    """The video may have been sent after the backup, and be paid for, whatever becomes of its image here."""
    video = bench.ask("video", prompt="kites")
    image = video["source"]["image_id"]
    bench.run(after_restore.hold_unsent(bench.ctx, bench.clock()))
    assert {bench.row(id).status for id in (video["id"], image)} == {"unclear"}
    bench.forward(7200)
    bench.look("unclear")
    for id in (video["id"], image):
        failure = bench.row(id).failure
        assert failure and failure.code == "submit_unknown" and bench.row(id).possibly_charged
    bench.finished = False


def test_a_restore_brings_back_the_same_rows_and_bytes(studio: Path, backup: Path, tmp_path: Path) -> None:
    told = restore(place(tmp_path), backup)
    assert told["held"] == 0 and told["files"] >= 12
    everything = [file.relative_to(studio) for file in (studio / "media").rglob("*") if file.is_file()]
    assert {file.relative_to(tmp_path) for file in (tmp_path / "media").rglob("*") if file.is_file()} == {*everything}
    assert all((tmp_path / file).read_bytes() == (studio / file).read_bytes() for file in everything)
    assert (tmp_path / "data.key").read_bytes() == (studio / "data.key").read_bytes()
    assert rows(tmp_path, "*") == rows(studio, "*")
    left = {file.name for file in tmp_path.iterdir()}
    assert {name for name in left if not name.endswith(".lock")} == {"reelhook.db", "data.key", "media"}


def test_a_backup_is_private_tells_no_secret_and_leaves_nothing_beside_it(studio: Path, tmp_path: Path) -> None:
    done = command("backup", tmp_path / "here" / "backup", **place(studio))
    assert done.returncode == 0 and "6 generations" in done.stdout
    path = tmp_path / "here" / "backup"
    assert [file.name for file in path.parent.iterdir()] == ["backup"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "data.key").stat().st_mode) == 0o600
    key = (path / "data.key").read_text()
    assert key not in done.stdout + done.stderr + (path / "manifest.json").read_text()


def test_stored_files_are_linked_where_that_can_be_and_else_copied(
    studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(place(studio), tmp_path / "linked")
    file = next((tmp_path / "linked" / "media").rglob("*.mp4"))
    assert file.stat().st_nlink > 1
    monkeypatch.setattr(os, "link", refuse(errno.EXDEV))
    made = taking.take(settings_of(studio), tmp_path / "copied")
    assert_whole(tmp_path / "copied")
    assert all(file.stat().st_nlink == 1 for file in (tmp_path / "copied").rglob("*") if file.is_file())
    assert made.files == sum(file.is_file() for file in (tmp_path / "linked" / "media").rglob("*"))


def refuse(number: int) -> Callable[..., None]:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fails


@pytest.mark.parametrize("where", ["link_or_copy", "sync_folders"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    where: str, studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, where, refuse(errno.ENOSPC))
    with pytest.raises(ReelhookError, match="no room for the backup"):
        taking.take(settings_of(studio), tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


def test_without_media_it_is_the_database_and_the_key(studio: Path, tmp_path: Path) -> None:
    told = back_up(place(studio), tmp_path / "backup", "--no-media")
    assert (told["media"], told["files"]) == (False, 0) and not (tmp_path / "backup" / "media").exists()
    shutil.copytree(studio / "media", tmp_path / "again" / "media")
    restore(place(tmp_path / "again"), tmp_path / "backup")
    assert rows(tmp_path / "again", "*") == rows(studio, "*")


def test_what_a_killed_service_had_committed_is_in_the_backup(unsent: tuple[Provider, Path]) -> None:
    _, backup = unsent
    assert rows(backup, "*") == rows(backup.parent / "first", "*") and len(rows(backup)) == 2


def test_files_deleted_after_the_database_was_copied_are_told_apart_from_lost_ones(
    studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(studio, tmp_path / "own")
    (deleted, of_deleted), (lost, of_lost), (_, changed) = rows(tmp_path / "own", "id, file_name")[:3]
    check = snapshot.check

    def meanwhile(copy: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "own" / "reelhook.db")) as connection, connection:
            connection.execute("DELETE FROM generations WHERE id = ?", (deleted,))
        for id in (deleted, lost):
            for file in (tmp_path / "own" / "media").rglob(f"{id}*"):
                file.unlink()
        for file in (tmp_path / "own" / "media").rglob(changed):
            file.write_bytes(b"not what was stored")
        check(copy)

    monkeypatch.setattr(snapshot, "check", meanwhile)
    made = taking.take(settings_of(tmp_path / "own"), tmp_path / "backup")
    assert made.deleted_meanwhile == sorted([of_deleted, f"{deleted}-poster.jpg"])
    assert made.lost == sorted([of_lost, f"{lost}-poster.jpg", changed])
    assert_whole(tmp_path / "backup")
    assert restoring.restore(settings_of(tmp_path / "again"), tmp_path / "backup").manifest == made


def test_a_backup_of_an_older_version_is_brought_to_the_current_schema(tmp_path: Path) -> None:
    old = tmp_path / "old" / "reelhook.db"
    migrate(old, migrations=known()[:1], schema=known()[0].sql)
    told = back_up(place(old.parent), tmp_path / "backup")
    assert told["schema_version"] == 1 and not told["data_key"]
    assert restore(place(tmp_path / "again"), tmp_path / "backup")["schema_version"] == len(known())
    with closing(sqlite3.connect(tmp_path / "again" / "reelhook.db")) as connection:
        assert connection.execute("SELECT MAX(version) FROM schema_migrations").fetchone() == (len(known()),)
    assert [file.name for file in (tmp_path / "again").glob("*.before-*")] == []


def test_a_backup_of_a_newer_version_is_refused(copied: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(copied / "reelhook.db")) as connection, connection:
        connection.execute("INSERT INTO schema_migrations VALUES (99, 'later', '', 1)")
    sums = (copied / "SHA256SUMS").read_text().splitlines(keepends=True)
    sums[0] = f"{disk.digest(copied / 'reelhook.db')}  reelhook.db\n"
    (copied / "SHA256SUMS").write_text("".join(sums))
    refused(command("restore", copied, **place(tmp_path / "again")), "newer than this program")
    assert not (tmp_path / "again" / "reelhook.db").exists()


def test_a_backup_killed_at_any_moment_is_absent_or_whole(studio: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    began = time.monotonic()
    back_up(place(studio), tmp_path / "measured")
    takes_s = time.monotonic() - began
    made = 0
    for moment in range(8):
        process = start("backup", target, **place(studio))
        time.sleep(takes_s * (0.3 + 0.09 * moment))  # the moment is the story
        kill(process)
        if target.exists():
            made += 1
            assert_whole(target)
            shutil.rmtree(target)
    assert made < 8
    back_up(place(studio), target)
    assert {file.name for file in tmp_path.iterdir()} == {"measured", "backup"}


def test_a_backup_killed_with_half_its_files_is_no_backup_and_the_next_one_cleans_up(
    studio: Path, tmp_path: Path
) -> None:
    """Stopped when the first stored files are there, so that the kill is sure to come in the middle."""
    crowded = Path(shutil.copytree(studio, tmp_path / "crowded"))
    crowd(crowded, 3000)
    process = start("backup", tmp_path / "backup", **place(crowded))
    until(lambda: any(tmp_path.glob("backup.partial-*/media/*/*")))
    kill(process)
    assert not (tmp_path / "backup").exists() and any(tmp_path.glob("backup.partial-*"))
    back_up(place(crowded), tmp_path / "backup")
    assert not any(tmp_path.glob("backup.partial-*"))


def test_a_restore_killed_half_way_leaves_no_database_and_can_be_run_again(studio: Path, tmp_path: Path) -> None:
    crowded = Path(shutil.copytree(studio, tmp_path / "crowded"))
    crowd(crowded, 900)
    back_up(place(crowded), tmp_path / "backup")
    for number in (0, 200, 400):
        process = start("restore", tmp_path / "backup", **place(tmp_path / "again"))
        until(lambda number=number: count(tmp_path / "again" / "media") > number)
        kill(process)
        assert not (tmp_path / "again" / "reelhook.db").exists()
    told = restore(place(tmp_path / "again"), tmp_path / "backup")
    assert rows(tmp_path / "again", "*") == rows(crowded, "*")
    assert count(tmp_path / "again" / "media") - count(tmp_path / "again" / "media" / "tmp") == told["files"]


def test_a_restore_that_breaks_off_before_anything_is_held_leaves_no_database(
    unsent: tuple[Provider, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that started on such a database would send what may have been paid for."""
    _, backup = unsent
    with monkeypatch.context() as broken:
        broken.setattr(after_restore, "hold_unsent", refuse(errno.EIO))
        with pytest.raises(OSError):
            restoring.restore(settings_of(tmp_path / "again"), backup)
    assert not (tmp_path / "again" / "reelhook.db").exists()
    assert restoring.restore(settings_of(tmp_path / "again"), backup).held == 2
    assert {status for _, status in rows(tmp_path / "again")} == {"unclear"}
    assert not any((tmp_path / "again").glob("*.restoring*"))


def test_a_restore_killed_at_any_moment_leaves_no_database_or_a_whole_one(backup: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    restore(place(tmp_path / "measured"), backup)
    takes_s = time.monotonic() - began
    for moment in range(5):
        again = tmp_path / f"again-{moment}"
        process = start("restore", backup, **place(again))
        time.sleep(takes_s * (0.55 + 0.09 * moment))  # the moment is the story
        kill(process)
        if not (again / "reelhook.db").exists():
            restore(place(again), backup)
        assert rows(again, "*") == rows(tmp_path / "measured", "*")
        with closing(sqlite3.connect(again / "reelhook.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def start(*arguments: object, **settings: str) -> commands.Process:
    with open(os.devnull, "wb") as nobody:
        return commands.spawn(*arguments, environment=environment(settings), stdout=nobody)


def kill(process: commands.Process) -> None:
    process.kill()
    process.wait(10)


def count(folder: Path) -> int:
    return sum(file.is_file() for file in folder.rglob("*"))


def crowd(folder: Path, count: int) -> None:
    """As many assets more, each with a file."""
    with closing(sqlite3.connect(folder / "reelhook.db")) as connection, connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(assets)")]
        (asset,) = connection.execute("SELECT * FROM assets LIMIT 1").fetchall()
        source = next((folder / "media").rglob(asset[columns.index("file_name")]))
        for number in range(count):
            id = f"{number:08x}-0000-7000-8000-0000000000{number % 256:02x}"
            row = {**dict(zip(columns, asset, strict=True)), "id": id, "file_name": f"{id}.png"}
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO assets VALUES ({marks})", tuple(row.values()))  # noqa: S608
            fan = folder / "media" / id[-2:]
            fan.mkdir(exist_ok=True)
            os.link(source, fan / f"{id}.png")


FLIPPED = ["reelhook.db", "data.key", "manifest.json", "SHA256SUMS", "media/*/*.mp4", "media/*/*-poster.jpg"]


@pytest.mark.parametrize("pattern", FLIPPED)
def test_a_flipped_bit_anywhere_is_found_before_anything_is_put_back(
    pattern: str, copied: Path, tmp_path: Path
) -> None:
    file = sorted(copied.glob(pattern))[0]
    size = file.stat().st_size
    for at in (0, size // 3, size - 2):
        content = bytearray(file.read_bytes())
        content[at] ^= 4
        file.write_bytes(content)
        with pytest.raises(ReelhookError, match="damaged"):
            restoring.restore(settings_of(tmp_path / "again"), copied)
        content[at] ^= 4
        file.write_bytes(content)
    assert count(tmp_path / "again" / "media") == 0 and not (tmp_path / "again" / "reelhook.db").exists()
    restoring.restore(settings_of(tmp_path / "again"), copied)


def test_a_file_or_a_line_that_is_missing_is_found(copied: Path, tmp_path: Path) -> None:
    lines = (copied / "SHA256SUMS").read_text().splitlines(keepends=True)
    (copied / "SHA256SUMS").write_text("".join(lines[:2] + lines[3:]))
    refused(command("restore", copied, **place(tmp_path / "again")), "does not list all its files")
    (copied / "SHA256SUMS").write_text("".join(lines))
    next((copied / "media").rglob("*.png")).unlink()
    refused(command("restore", copied, **place(tmp_path / "again")), "is missing")


@pytest.mark.parametrize("line", [f"{'0' * 64}  media/aa/../../../../x.png\n", f"{'0' * 64}  /etc/passwd\n", "hello\n"])
def test_a_path_that_leads_out_of_a_backup_is_refused(line: str, copied: Path, tmp_path: Path) -> None:
    with (copied / "SHA256SUMS").open("a") as file:
        file.write(line)
    refused(command("restore", copied, **place(tmp_path / "again")), "SHA256SUMS is damaged")


def test_a_backup_never_goes_where_something_is(studio: Path, backup: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (backup, tmp_path / "file"):
        refused(command("backup", path, **place(studio)), "a backup is a new folder")
    assert_whole(backup)
    (tmp_path / "empty").mkdir()
    back_up(place(studio), tmp_path / "empty")


def test_two_backups_to_one_place_do_not_meet(studio: Path, tmp_path: Path) -> None:
    with partial_folder(tmp_path / "backup") as partial:
        refused(command("backup", tmp_path / "backup", **place(studio)), "another backup is being made")
        assert partial.exists()
    back_up(place(studio), tmp_path / "backup")


def test_what_is_no_database_or_not_ours_to_copy_is_a_sentence(studio: Path, backup: Path, tmp_path: Path) -> None:
    elsewhere = {"DATABASE_URL": "postgresql://db.example.com/reelhook"}
    in_a_bucket = {**place(studio), "STORAGE_URL": "s3://bucket/prefix"}
    target = tmp_path / "backup"
    refused(command("backup", target, **place(tmp_path / "nothing")), "there is no database at")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "reelhook.db").touch()
    refused(command("backup", target, **place(tmp_path / "empty")), "has no tables of ours")
    refused(command("backup", target, **elsewhere), "use the engine's own tools")
    refused(command("backup", target, **in_a_bucket), "use the store's own tools")
    refused(command("restore", backup, **elsewhere), "use the engine's own tools")
    refused(command("restore", backup, **{**place(tmp_path), **{"STORAGE_URL": "s3://b/p"}}), "the store's own tools")
    refused(command("restore", tmp_path, **place(tmp_path / "again")), "is no backup")
    assert not target.exists()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "reelhook.db").write_bytes(b"something else, and quite long" * 100)
    refused(command("backup", target, **place(tmp_path / "broken")), "not a database")
    assert not target.exists() and not any(tmp_path.glob("*.partial-*"))


def test_a_restore_never_goes_where_something_is(studio: Path, backup: Path, tmp_path: Path) -> None:
    refused(command("restore", backup, **place(studio)), "exists")
    for suffix in ("-wal", "-journal"):
        folder = tmp_path / f"left{suffix}"
        folder.mkdir()
        (folder / f"reelhook.db{suffix}").write_bytes(b"of another")
        refused(command("restore", backup, **place(folder)), "belongs to a database that was here")
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "data.key").write_text("k" * 64)
    refused(command("restore", backup, **place(tmp_path / "key")), "another key")
    (tmp_path / "files" / "media" / "aa").mkdir(parents=True)
    (tmp_path / "files" / "media" / "aa" / f"{'0' * 36}.png").write_bytes(b"somebody's")
    refused(command("restore", backup, **place(tmp_path / "files")), "not of this backup")
    assert (tmp_path / "files" / "media" / "aa" / f"{'0' * 36}.png").read_bytes() == b"somebody's"


def test_a_restore_is_refused_while_a_service_runs_there(backup: Path, tmp_path: Path) -> None:
    with emulating() as provider, gateway(tmp_path, provider) as service:
        refused(command("restore", backup, **service.settings), "is used by another Reelhook process")


def damage(file: Path) -> None:
    """Four bytes rot: the length stays."""
    content = file.read_bytes()
    file.unlink()  # its other names keep what they have
    file.write_bytes(content[:20] + b"rot!" + content[24:])


def test_a_stored_file_that_rotted_is_told_as_lost_and_the_rest_can_be_put_back(studio: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(studio, tmp_path / "own"))
    (_, rotten), *_ = rows(own, "id, file_name")
    damage(next((own / "media").rglob(rotten)))
    done = command("backup", tmp_path / "backup", **place(own))
    assert (
        done.returncode == 0 and f"does not have these files whole, and neither has the backup: {rotten}" in done.stderr
    )
    assert_whole(tmp_path / "backup")
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text())["lost"] == [rotten]
    assert restore(place(tmp_path / "again"), tmp_path / "backup")["left_out"] == []
    assert rows(tmp_path / "again", "*") == rows(own, "*")


def test_stored_files_that_rotted_in_a_backup_are_left_out_when_that_is_asked(copied: Path, tmp_path: Path) -> None:
    rotten, missing = (sorted((copied / "media").rglob(pattern))[0] for pattern in ("*.mp4", "*.png"))
    damage(rotten)
    missing.unlink()
    refused(command("restore", copied, **place(tmp_path / "again")), "`--without-damaged` puts back all but such files")
    done = command("restore", copied, "--without-damaged", **place(tmp_path / "again"))
    assert done.returncode == 0 and "damaged in the backup" in done.stderr
    assert rotten.name in done.stderr and missing.name in done.stderr
    told = restore(place(tmp_path / "twice"), copied, "--without-damaged")
    assert told["left_out"] == sorted([rotten.name, missing.name])
    for folder in (tmp_path / "again", tmp_path / "twice"):
        assert rows(folder, "*") == rows(copied, "*")
        stored = {file.name for file in (folder / "media").rglob("*") if file.is_file()}
        whole = {file.name for file in (copied / "media").rglob("*") if file.is_file()}
        assert stored == whole - {rotten.name} and told["files"] == len(stored)


@pytest.mark.parametrize("vital", ["reelhook.db", "data.key", "manifest.json"])
def test_a_damaged_database_is_never_put_back(vital: str, copied: Path, tmp_path: Path) -> None:
    damage(next((copied / "media").rglob("*.png")))
    damage(copied / vital)
    done = command("restore", copied, "--without-damaged", **place(tmp_path / "again"))
    assert done.returncode == 1 and vital in done.stderr and "--without-damaged" not in done.stderr
    assert not (tmp_path / "again" / "reelhook.db").exists()


def test_what_a_restore_holds_takes_no_place_from_what_is_new(tmp_path: Path, provider: Provider) -> None:
    with working(tmp_path, provider, worker=False, max_in_flight=2) as bench:
        held = bench.ask_many(5, prompt="held")
        assert bench.run(after_restore.hold_unsent(bench.ctx, bench.clock() - 1000)) == 5
        new = bench.ask_many(3, prompt="new")
        provider.spoil({"kind": "stuck"})
        assert bench.submit_next() == new[:2]
        made = provider.create(
            body={"webhook": f"{bench.origin}/webhooks/replicate/{held[0]}/{bench.row(held[0]).nonce}"}
        )
        bench.look("unclear")
        assert bench.row(held[0]).provider_id == made.json()["id"] and bench.row(held[0]).held_at is None
        assert bench.run(bench.ctx.db.read(lambda tx: claims.count_in_flight(tx, "replicate", "replicate"))) == 3
        bench.finished = False


@contextmanager
def holding(folder: Path, provider: Provider, count: int) -> Iterator[tuple[Workshop, list[str]]]:
    """A service at work that holds as many requests as a restore does, none of which was ever sent."""
    with working(folder, provider, worker=False) as bench:
        ids = bench.ask_many(count, prompt="held")
        bench.run(after_restore.hold_unsent(bench.ctx, bench.clock() - 86_400_000))
        bench.finished = False
    with working(folder, provider) as bench:
        yield bench, ids
        bench.finished = False


def test_the_list_is_read_once_for_all_that_is_held(tmp_path: Path, provider: Provider) -> None:
    with holding(tmp_path, provider, 250) as (bench, ids):
        until(lambda: all(row.polls == 1 for row in map(bench.row, ids)))
        assert provider.ledger["lists"] == 2  # 200 rows a time
        assert all((row.attempts, row.lease_owner) == (0, None) for row in map(bench.row, ids))


def test_a_held_row_that_cannot_be_worked_on_holds_up_no_other(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopts = adopt._adopt

    async def breaks_at_the_first(ctx: Any, row: Any, *others: Any) -> None:
        if row.prompt == "held 0":
            raise RuntimeError("it cannot be read")
        await adopts(ctx, row, *others)

    monkeypatch.setattr(adopt, "_adopt", breaks_at_the_first)
    with holding(tmp_path, provider, 5) as (bench, (first, *others)):
        until(lambda: all(bench.row(id).polls == 1 for id in others))
        for _ in range(5):
            before = until(lambda: bench.row(first).attempts)
            bench.forward(31)
            until(lambda before=before: bench.row(first).attempts > before or bench.row(first).status == "failed")
        until(lambda: bench.row(first).status == "failed")
        assert all(bench.row(id).status == "unclear" and bench.row(id).attempts <= 1 for id in others)


def test_another_clients_equal_request_is_not_adopted_for_one_that_is_held(bench: Workshop, provider: Provider) -> None:
    """The list shows no webhook, and since the backup anybody may have asked for the same."""
    id = bench.ask(prompt="a fox")["id"]
    bench.run(after_restore.hold_unsent(bench.ctx, bench.clock() - 3_600_000))
    provider.create(**bench.row(id).params)
    bench.look("unclear")
    assert (bench.row(id).status, bench.row(id).polls) == ("unclear", 1) and provider.ledger["lists"] == 1
    bench.finished = False


def test_what_was_stored_after_the_backup_is_not_swept_when_only_the_database_is_put_back(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "SETTLE_S", 0.0)
    monkeypatch.setattr(ids, "_last", 0)  # other stories put their clocks forward, and ids never go back
    (tmp_path / "own").mkdir()
    with working(tmp_path / "own", provider) as bench:
        bench.ended(bench.ask(prompt="before")["id"], "completed")
        taking.take(settings_of(tmp_path / "own"), tmp_path / "backup", media=False)
        paid = bench.row(bench.ask(prompt="since")["id"]).id
        bench.ended(paid, "completed")
    again = Path(shutil.copytree(tmp_path / "own" / "media", tmp_path / "again" / "media")).parent
    restoring.restore(settings_of(again), tmp_path / "backup")
    names = {file.name for file in (again / "media").rglob(f"{paid}*")}
    assert len(names) == 2
    with emulating() as another, working(again, another) as bench:
        assert bench.run(orphans.sweep_orphans(bench.ctx)) == orphans.Swept(2, 0, kept=2)
        bench.ended(bench.ask(prompt="after")["id"], "completed")
        orphan = f"{bench.ctx.new_id()}.png"
        spooled = bench.ctx.spool.new(orphan)
        spooled.write_bytes(b"of a crash")
        bench.run(bench.ctx.store.put(spooled, orphan))
        swept = bench.run(orphans.sweep_orphans(bench.ctx))
        assert swept == orphans.Swept(3, 1, kept=2) and swept.trusted
        left = list((again / "media").rglob(f"{paid}*"))
        assert {file.name for file in left} == names
        for file in left:
            file.unlink()  # so that the audit finds none without a row


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_a_backup_and_what_is_restored_from_it_is_its_owners_alone(studio: Path, tmp_path: Path, umask: int) -> None:
    made = tmp_path / "new" / "monday"
    before = os.umask(umask)
    try:
        back_up(place(studio), made)
        private(made)
        assert {file.name for file in made.iterdir()} >= {"SHA256SUMS", "manifest.json", "media", "reelhook.db"}
        restore(place(tmp_path / "again"), made)
        private(tmp_path / "again")
    finally:
        os.umask(before)


def test_what_the_service_makes_is_its_owners_alone(backup: Path, tmp_path: Path) -> None:
    """Prompts, nonces, hashes and pictures; though the umask would let everybody read."""
    before = os.umask(0o022)
    try:
        with emulating() as provider:
            service = new_gateway(tmp_path, provider, **place(tmp_path / "live"))
            try:
                service.start()
                service.begin()
                service.ended(service.ask()["id"], "completed")
                private(tmp_path / "live")
            finally:
                service.abandon()
                service.close()
        restore(place(tmp_path / "again"), backup)
        private(tmp_path / "again")
        assert stat.S_IMODE((backup / "reelhook.db").stat().st_mode) == 0o600
        old = tmp_path / "old" / "reelhook.db"
        migrate(old, migrations=known()[:1], schema=known()[0].sql)
        migrate(old)
        assert list(old.parent.glob("*.before-*"))
        private(old.parent)
    finally:
        os.umask(before)


def private(folder: Path) -> None:
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    folders = {path for path in found if path.is_dir()}
    assert {found[path] for path in folders} == {0o700}, found
    assert {mode for path, mode in found.items() if path not in folders} == {0o600}, found


def test_a_link_or_a_file_that_is_called_like_a_broken_backup_is_left_alone(studio: Path, tmp_path: Path) -> None:
    (tmp_path / "somebodys").mkdir()
    (tmp_path / "backup.partial-deadbeef").symlink_to(tmp_path / "somebodys")
    (tmp_path / "backup.partial-00000000").touch()
    back_up(place(studio), tmp_path / "backup")
    assert len(list(tmp_path.glob("backup.partial-*"))) == 2 and (tmp_path / "somebodys").is_dir()


def test_a_backup_that_has_just_begun_is_not_taken_for_a_broken_one(
    studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins after the first made its folder, and before that is locked."""
    told: list[str] = []
    mkdir = Path.mkdir

    def second() -> None:
        try:
            taking.take(settings_of(studio), tmp_path / "backup", media=False)
        except ReelhookError as error:
            told.append(error.message)

    other = threading.Thread(target=second)

    def interrupted(path: Path, *args: Any, **more: Any) -> None:
        mkdir(path, *args, **more)
        if ".partial-" in path.name and threading.current_thread() is not other:
            monkeypatch.setattr(Path, "mkdir", mkdir)
            other.start()
            other.join(1)

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with partial_folder(tmp_path / "backup") as partial:
        other.join(20)
        assert partial.is_dir()
    assert len(told) == 1 and "another backup is being made" in told[0]
