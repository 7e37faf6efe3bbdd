"""Power cuts: the service goes on with what the disk may hold, and at any moment the disk holds what was promised."""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from auditor import DAMAGED, LOST, PAID_TWICE, Finding
from emulating import until

from crashes import power, strace
from crashes.case import case
from crashes.power import Call, Disk
from crashes.scene import Scene

TRACED = strace.works()
CUTS = 30
MODES = ("none", "some", "all")
UNSENT = ("waiting", "queued")
FINAL = ("completed", "failed", "canceled")
TOLD = re.compile(rb'"id":"([0-9a-f-]{36})","kind":"\w+","status":"(\w+)"')
SENT = re.compile(rb"/webhooks/replicate/([0-9a-f-]{36})/")


def traced(scene: Scene) -> Path:
    """Start the service so that every call is logged; in every other round on a folder that is used already."""
    log = scene.folder / "calls.log"
    if scene.round % 2:
        scene.service.start(power.logged(log))
        scene.service.begin()
        return log
    scene.start()
    scene.ask(2)
    until(lambda: not scene.rows())
    assert scene.service.stop() == 0
    shutil.copytree(scene.folder, scene.folder / "before", ignore=shutil.ignore_patterns("*.log", "before"))
    scene.service.start(power.logged(log))
    return log


def disk_of(scene: Scene) -> Disk:
    """The disk as it was when the log began."""
    before = scene.folder / "before"
    return Disk(scene.folder, before if before.exists() else None)


def some_work(scene: Scene) -> None:
    """Images and videos in all their stages."""
    scene.provider.spoil({"kind": "delay", "on": "run", "delay_s": 0.4, "match": {"every": 2}})
    scene.ask(4)
    scene.ask(1, "video")
    scene.ask(2)


@case("Z", "power cut at a random moment; it goes on with what is left", rounds=16, here=TRACED)
def cut_and_go_on(scene: Scene) -> None:
    log = traced(scene)
    some_work(scene)
    until(lambda: scene.chance.random() < 0.02 or not scene.rows())
    scene.kill()
    disk = disk_of(scene)
    for call in power.read(log):
        disk.tell(call)
    for path in (*scene.folder.glob("reelhook.db*"), scene.folder / "data.key"):
        path.unlink(missing_ok=True)
    shutil.rmtree(scene.folder / "media")
    _write(disk.left(MODES[scene.round % 3], scene.chance), scene.folder)


@case("Z", f"power cut at {CUTS} moments of one run: each promise is on the disk", rounds=6, here=TRACED)
def cut_anywhere(scene: Scene) -> None:
    log = traced(scene)
    some_work(scene)
    until(lambda: not scene.rows())
    scene.kill()
    calls = power.read(log)
    moments = set(scene.chance.sample(range(len(calls)), CUTS))
    disk, promises = disk_of(scene), Promises()
    for at, call in enumerate(calls):
        disk.tell(call)
        promises.hear(call)
        if at in moments:
            scene.found += list(_broken_promises(disk, scene, promises, at))
            scene.kills += 1


def _broken_promises(disk: Disk, scene: Scene, promises: Promises, at: int) -> Iterator[Finding]:
    for mode in MODES:
        with tempfile.TemporaryDirectory() as place:
            _write(disk.left(mode, scene.chance), Path(place))
            if not (Path(place) / "reelhook.db").exists() and not promises.told:
                continue
            with closing(sqlite3.connect(Path(place) / "reelhook.db")) as connection:
                connection.row_factory = sqlite3.Row
                yield from _looked_at(connection, Path(place) / "media", promises, f"{mode} at {at}")


def _looked_at(connection: sqlite3.Connection, media: Path, promises: Promises, when: str) -> Iterator[Finding]:
    verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if verdict != "ok" or connection.execute("PRAGMA foreign_key_check").fetchone():
        yield Finding(DAMAGED, f"{when}: {verdict}")
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'generations'").fetchone():
        if promises.told:
            yield Finding(LOST, f"{when}: everything")
        return
    rows = {row["id"]: row for row in connection.execute("SELECT * FROM generations")}
    for id, status in promises.told.items():
        if id not in rows:
            yield Finding(LOST, f"{when}: {id} was accepted and is not known")
        elif status in FINAL and rows[id]["status"] != status:
            yield Finding(LOST, f"{when}: {id} was told as {status} and is {rows[id]['status']}")
    for id in promises.sent:
        if id not in rows or rows[id]["status"] in UNSENT:
            yield Finding(PAID_TWICE, f"{when}: {id} was sent and would be sent again")
    for row in rows.values():
        if row["status"] == "completed" and _sha256(media, row["file_name"]) != row["sha256"]:
            yield Finding(LOST, f"{when}: the bytes of {row['id']}")


@dataclass
class Promises:
    """What left the machine so far: the last status told of each generation, and which a provider was asked for."""

    told: dict[str, str] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)

    def hear(self, call: Call) -> None:
        if call.name in strace.WORDS.split(",") and call.places and call.places[0].name.startswith("socket:"):
            words = b"".join(call.strings)
            self.told |= {id.decode(): status.decode() for id, status in TOLD.findall(words)}
            self.sent |= {id.decode() for id in SENT.findall(words)}


def _sha256(media: Path, name: str) -> str | None:
    found = next(media.rglob(name), None)
    return hashlib.sha256(found.read_bytes()).hexdigest() if found else None


def _write(files: dict[Path, bytes | None], folder: Path) -> None:
    for path, content in sorted(files.items(), key=lambda item: len(item[0].parts)):
        if content is None:
            (folder / path).mkdir(exist_ok=True)
        else:
            (folder / path).write_bytes(content)
