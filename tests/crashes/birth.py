"""Killed while the database is made, brought to a newer schema, tidied up at the end, or copied."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

from emulating import until
from gateway import Gateway

from backend.cli.processes import COMMAND, environment
from backend.db import migrate, versions
from crashes import strace
from crashes.case import CleanRun, case
from crashes.scene import Scene

TRACED = strace.works()
KILLS = 3
OLD = 1


def killed_while_starting(scene: Scene, calls: str, when: int) -> bool:
    """Whether the n-th such call came before it was ready; then it was killed there."""
    service = scene.service
    service.process = service.spawn(strace.under(calls, strace.KILL, str(when)))
    until(lambda: strace.is_down(service) or _is_ready(service), 40)
    hit = strace.is_down(service)
    if not hit:
        service.abandon()
    scene.kills += 1
    return hit


def _is_ready(service: Gateway) -> bool:
    with suppress(Exception):
        return service.http.get("/readyz").status_code == 200
    return False


def killed_on_the_way(scene: Scene) -> None:
    """Three kills, each a bit further than the last."""
    calls, step = (("pwrite64", 9), (strace.SYNCS, 2), ("write,mkdir,unlink,renameat,rename,link", 2))[scene.round % 3]
    for kill in range(KILLS):
        if not killed_while_starting(scene, calls, 1 + step * (kill + KILLS * (scene.round // 3))) and not kill:
            raise CleanRun


@case("Z", "first start killed at the n-th write or sync", rounds=9, here=TRACED)
def first_start(scene: Scene) -> None:
    killed_on_the_way(scene)
    scene.start()
    scene.ask(2)


@case("Z", "an old database is brought to date and killed at the n-th call", rounds=9, here=TRACED)
def upgrade(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "delay", "on": "run", "delay_s": 1.0})
    scene.ask(3)
    scene.ask(1, "video")
    scene.kill()
    make_old(scene.folder / "reelhook.db")
    killed_on_the_way(scene)
    for copy in scene.folder.glob("reelhook.db.before-*[0-9]"):
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT max(version) FROM schema_migrations").fetchone() == (OLD,)


def make_old(path: Path) -> None:
    """The same rows in the first released schema."""
    old = path.with_name("old.db")
    first = versions.known()[:OLD]
    migrate.migrate(old, migrations=first, schema="".join(one.sql for one in first))
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("ATTACH ? AS new", (str(path),))
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'schema_migrations'"
        )
        for (table,) in tables.fetchall():
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of the schema
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}")  # noqa: S608 - names of the schema
    for file in path.parent.glob("reelhook.db*"):
        if not file.name.endswith(".lock"):
            file.unlink()
    for file in path.parent.glob("old.db*"):
        file.rename(path.with_name(file.name.replace("old.db", path.name)))


@case("Z", "killed while the log is written back into the database", rounds=8, here=TRACED)
def written_back(scene: Scene) -> None:
    scene.start()
    scene.ask(6)
    until(lambda: not scene.rows())
    calls = ("pwrite64", strace.SYNCS)[scene.round % 2]
    when = 1 + (scene.round // 2) * (6 if calls == "pwrite64" else 1)
    database = [scene.folder / "reelhook.db"]
    with (
        strace.injecting(scene.service, calls, strace.KILL, str(when), database),
        suppress(subprocess.TimeoutExpired),
    ):
        scene.service.stop()
    assert scene.service.process is not None
    if scene.service.process.returncode == 0:
        raise CleanRun
    scene.restart()
    scene.ask(1)


@case("Z", "a backup is killed at the n-th call: it is whole or not there", rounds=9, here=TRACED)
def backup(scene: Scene) -> None:
    scene.start()
    scene.ask(3)
    until(lambda: not scene.rows())
    ids = scene.ask(2)
    calls, step = (("pwrite64", 20), (strace.SYNCS, 4), ("rename,renameat,renameat2,link,linkat,mkdir,write", 2))[
        scene.round % 3
    ]
    target = scene.folder / "backups" / "one"
    target.parent.mkdir()
    for kill in range(KILLS):
        when = 1 + step * (kill + KILLS * (scene.round // 3))
        done = _command(scene, ["backup", str(target)], strace.under(calls, strace.KILL, str(when)))
        if done == 0:
            break
        scene.kills += 1
        assert not target.exists() or _is_whole(target)
    if not target.exists():
        assert _command(scene, ["backup", str(target)]) == 0, "no backup after one that was killed"
    assert _is_whole(target)
    shutil.rmtree(target.parent)
    for id in ids:
        scene.service.ended(id, "completed", 40)


def _is_whole(target: Path) -> bool:
    with closing(sqlite3.connect(f"file:{target}/reelhook.db?mode=ro&immutable=1", uri=True)) as connection:
        names = [name for (name,) in connection.execute("SELECT file_name FROM generations WHERE status = 'completed'")]
        there = {path.name for path in (target / "media").rglob("*")}
        whole = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return whole and there >= set(names) and (target / "manifest.json").exists()


def _command(scene: Scene, words: list[str], under: list[str] | None = None) -> int:
    command = [*(under or []), *COMMAND, *words]
    given = environment(scene.service.settings)
    return subprocess.run(command, cwd=scene.folder, env=given, capture_output=True, timeout=60, check=False).returncode
