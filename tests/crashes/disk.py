"""A disk that is full or fails: what was accepted stays, what cannot be kept is refused, and then all goes on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
from emulating import until

from crashes import strace
from crashes.case import case
from crashes.fetch import BIG, SLOW
from crashes.scene import Scene

TRACED = strace.works()
REFUSED = (503, 507)
EXIT_S = 15.0


@dataclass
class SmallDisk:
    """A file system of a few megabytes over the scene's folder, which only the service sees there."""

    under: Sequence[str]
    seen_at: Path

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.seen_at / "ballast").open("ab", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12):
                with suppress(OSError):
                    while True:
                        ballast.write(bytes(size))

    def make_room(self) -> None:
        (self.seen_at / "ballast").unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Such a disk, held by a process of its own so that it outlives the service."""
    mount = f"mount -t tmpfs -o size={megabytes}m none '{folder}' && echo mounted && exec sleep 600"
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", mount], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n", "no file system can be mounted here"
        yield SmallDisk(["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"], Path(f"/proc/{holder.pid}/root{folder}"))
    finally:
        holder.kill()
        holder.communicate()


@cache
def mounts() -> bool:
    """Whether this machine lets us mount a file system that only we see."""
    try:
        with small_disk(Path("/mnt"), 1):
            return True
    except (AssertionError, OSError):
        return False


@case("M", "a full disk: refused or kept, killed, and on with room", rounds=6, here=mounts())
def full(scene: Scene) -> None:
    with small_disk(scene.folder, 40) as disk:
        scene.service.start(disk.under)
        scene.service.begin()
        scene.provider.spoil(BIG, SLOW | {"bytes_per_s": 4_000_000})
        scene.ask(6)
        until(lambda: scene.chance.random() < 0.1)
        disk.fill()
        refused_or_kept(scene, until_refused=False)
        scene.kill()
        _try_to_start(scene, disk.under)
        if scene.round % 2:
            disk.make_room()
            scene.service.start(disk.under)
            (id,) = scene.ask(1)
            scene.service.ended(id, "completed", 60)
            scene.kill()
        for found in disk.seen_at.iterdir():  # the operator takes a bigger disk
            (shutil.copytree if found.is_dir() else shutil.copy2)(found, scene.folder / found.name)
    (scene.folder / "ballast").unlink(missing_ok=True)
    scene.let_time_pass()


def _try_to_start(scene: Scene, under: Sequence[str]) -> None:
    """On a full disk it starts, or says why not and ends; killed either way."""
    scene.service.process = scene.service.spawn(under)
    until(lambda: strace.is_down(scene.service) or _answers(scene), 30)
    if not strace.is_down(scene.service):
        scene.kill()


def _answers(scene: Scene) -> bool:
    with suppress(httpx.HTTPError):
        return scene.service.http.get("/healthz").status_code == 200
    return False


def refused_or_kept(scene: Scene, *, until_refused: bool = True) -> None:
    """Ask on: an answer is 202 and kept, or says that there is no room and when to come again."""
    for number in range(60):
        answer = scene.service.try_to_ask(prompt=f"without room {number}")
        if answer.status_code == 202:
            scene.service.accepted.append(answer.json()["id"])
            continue
        assert answer.status_code in REFUSED, answer.text
        assert int(answer.headers["retry-after"]) > 0
        if number > 3:
            return
    assert not until_refused, "it was never refused"


@case("M", "no room for the database from its n-th write on", rounds=8, here=TRACED)
def no_room_for_database(scene: Scene) -> None:
    scene.start()
    scene.ask(3)
    log = [scene.folder / "reelhook.db-wal"]
    with strace.injecting(scene.service, "pwrite64", "error=ENOSPC", f"{5 * scene.round + 1}+", log):
        refused_or_kept(scene)
        if scene.round % 2:
            scene.kill()
    if strace.is_down(scene.service):
        scene.service.start()
    until(lambda: scene.service.try_to_ask(prompt="is there room?").status_code == 202, 40)
    scene.ask(1)
    scene.restart()


@case("M", "no quota for a file's name: the download waits for it", rounds=4, here=TRACED)
def no_quota_for_media(scene: Scene) -> None:
    scene.start()
    call = ("renameat", "mkdir", "renameat", "mkdir")[scene.round]
    name = ("EDQUOT", "ENOSPC", "ENOSPC", "EDQUOT")[scene.round]
    with strace.injecting(scene.service, call, f"error={name}", "1+") as hit:
        ids = scene.ask(3)
        until(hit)
        until(lambda: all(scene.service.stage(id) == "storing" for id in ids))
        scene.kill()
    scene.let_time_pass()
    scene.service.start()
    for id in ids:
        scene.service.ended(id, "completed", 40)


@case("N", "the n-th sync of the database fails", rounds=8, here=TRACED)
def sync_fails(scene: Scene) -> None:
    scene.start()
    failing(scene, "fdatasync", str(scene.round + 1), [scene.folder / "reelhook.db-wal"])


@case("M", "the database's disk has room, and says that there is no quota", rounds=4, here=TRACED)
def no_quota_for_database(scene: Scene) -> None:
    scene.start()
    failing(scene, "pwrite64", str(5 * scene.round + 1), [scene.folder / "reelhook.db-wal"], "EDQUOT")


@case("N", "the database fails at its n-th write", rounds=4, here=TRACED)
def write_fails(scene: Scene) -> None:
    scene.start()
    failing(scene, "pwrite64", str(7 * scene.round + 1), [scene.folder / "reelhook.db-wal"])


@case("N", "the n-th sync of a media folder fails", rounds=3, here=TRACED)
def folder_fails(scene: Scene) -> None:
    scene.start()
    failing(scene, "fsync", str(scene.round + 1), [])


def failing(scene: Scene, calls: str, when: str, files: Sequence[Path], error: str = "EIO") -> None:
    """A disk that cannot be believed: nothing is accepted that may not be kept; it ends, and goes on on a good disk."""
    with strace.injecting(scene.service, calls, f"error={error}", when, files) as hit:
        for number in range(40):
            with suppress(httpx.HTTPError):
                answer = scene.service.try_to_ask(prompt=f"on a bad disk {number}")
                if answer.status_code == 202:
                    scene.service.accepted.append(answer.json()["id"])
                else:
                    assert answer.status_code in REFUSED, answer.text
            if hit():
                break
        until(hit)
        if scene.round % 4 == 3:
            scene.kill()
        until(lambda: strace.is_down(scene.service), EXIT_S)
    assert scene.service.process is not None
    assert scene.service.process.returncode != 0
    scene.kill()
    scene.service.start()
    scene.ask(2)
    scene.restart()
