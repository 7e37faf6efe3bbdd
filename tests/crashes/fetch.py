"""Killed while files are stored: each file is there with its bytes, or not at all and fetched again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from emulating import png, until

from backend.app import open_context
from backend.config import Settings
from backend.upkeep import orphans
from crashes import strace
from crashes.case import case
from crashes.scene import Scene

TRACED = strace.works()
KILLS = 3
BIG: dict[str, Any] = {"kind": "output_bytes", "bytes": 3_500_000}
SLOW: dict[str, Any] = {"kind": "output_slow", "bytes_per_s": 60_000}


def stored(scene: Scene, calls: str, n: int, *faults: dict[str, Any], images: int = 6, videos: int = 0) -> None:
    """Kill at the n-th such call of a thread while this many are fetched beside each other."""
    scene.provider.spoil(*faults)

    def fetch() -> None:
        scene.ask(images)
        if videos:
            scene.ask(videos, "video")
        until(lambda: strace.is_down(scene.service) or not scene.rows(), 60)

    strace.killed_at(scene, calls, n, fetch)


@case("K", "downloads killed at the n-th write of a thread", rounds=8, here=TRACED)
def written(scene: Scene) -> None:
    scene.start()
    for n in range(3 * scene.round + 1, 3 * scene.round + 4):
        stored(scene, "write", 2 * n, BIG)


@case("K", "downloads killed at the n-th rename into the storage", rounds=4, here=TRACED)
def renamed(scene: Scene) -> None:
    scene.start()
    for _ in range(KILLS):
        stored(scene, "renameat", scene.round + 1, images=4 + 2 * scene.round)


@case("K", "downloads killed at the n-th sync of a folder", rounds=4, here=TRACED)
def synced(scene: Scene) -> None:
    scene.start()
    for _ in range(KILLS):
        stored(scene, "fsync", scene.round + 1, images=4 + 2 * scene.round)


@case("K", "videos and their posters killed between two calls", rounds=6, here=TRACED)
def videos(scene: Scene) -> None:
    scene.start()
    calls = ("chmod", "renameat", "fdatasync", "fsync", "renameat", "chmod")[scene.round]  # the cage makes folders too
    stored(scene, calls, 1 + scene.round // 3, images=1, videos=3)


@case("K", "slow downloads killed at random moments", rounds=6)
def slow(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(SLOW)
    scene.ask(8)
    for _ in range(4):
        with suppress(AssertionError):
            until(lambda: _fetching(scene) and scene.chance.random() < 0.1, 3)
        scene.restart()


def _fetching(scene: Scene) -> bool:
    return any((scene.folder / "media" / "tmp").iterdir())


@case("K", "an upload is cut off at the n-th call: row and file or neither", rounds=6, here=TRACED)
def upload(scene: Scene) -> None:
    scene.start()
    calls = ("fsync", "renameat", "mkdir", "unlink,unlinkat", strace.SYNCS, "pwrite64")[scene.round]
    scene.service.upload(png((63, 63)))
    for n in range(1, KILLS + 1):
        strace.killed_at(scene, calls, n, _uploads(scene, n))
    swept(scene)


def _uploads(scene: Scene, n: int) -> Callable[[], None]:
    """Until it is killed, or surely will not be."""

    def upload() -> None:
        for number in range(12):
            scene.service.upload(png((64 + n, 64 + number)))

    return upload


@case("K", "a deletion is cut off at the n-th call: row and files go", rounds=4, here=TRACED)
def deleted(scene: Scene) -> None:
    scene.start()
    calls = ("unlinkat,unlink", "fsync", "pwrite64", strace.SYNCS)[scene.round]
    ids = scene.ask(4)
    until(lambda: not scene.rows())

    def delete() -> None:
        for id in ids:
            assert scene.service.http.delete(f"/api/v2/generations/{id}").status_code == 204
        until(lambda: strace.is_down(scene.service) or _no_rubbish(scene), 40)

    scene.service.accepted.clear()
    strace.killed_at(scene, calls, 2, delete)
    for id in ids:
        assert scene.service.http.delete(f"/api/v2/generations/{id}").status_code in (204, 404)
    scene.restart()  # it tidies when it starts
    until(lambda: _no_rubbish(scene), 40)


def _no_rubbish(scene: Scene) -> bool:
    return not scene.rows("SELECT file_name FROM trash")


@case("L", "killed at the n-th database write after the files are named", rounds=6, here=TRACED)
def uncommitted(scene: Scene) -> None:
    scene.start()
    scene.ask(1)
    until(lambda: not scene.rows())
    for n in range(1, KILLS + 1):
        scene.provider.spoil(SLOW)
        ids = scene.ask(2)
        until(lambda ids=ids: all(scene.service.stage(id) == "storing" for id in ids))
        wal = [scene.folder / "reelhook.db-wal"]
        done = lambda: until(lambda: strace.is_down(scene.service) or not scene.rows())  # noqa: E731
        strace.killed_at(scene, "pwrite64", 3 * scene.round + n, done, wal)


@case("L", "killed at the commit, and then the output is gone", rounds=3, here=TRACED)
def gone(scene: Scene) -> None:
    scene.start()
    scene.ask(1)
    until(lambda: not scene.rows())
    scene.provider.spoil(SLOW)
    (id,) = scene.ask(1)
    until(lambda: scene.service.stage(id) == "storing")
    named = lambda: any(file.name.startswith(id) for file in (scene.folder / "media").glob("??/*"))  # noqa: E731
    with strace.injecting(scene.service, "pwrite64", "error=ENOSPC", "1+", [scene.folder / "reelhook.db-wal"]):
        until(named)
        scene.kill()
    scene.provider.spoil({"kind": "output_404"})
    scene.service.start()
    until(lambda: not scene.rows(), 40)
    swept(scene)


def swept(scene: Scene) -> None:
    """What a start does a minute later: files that no row names are removed."""
    scene.service.stop()
    asyncio.run(_sweep({key.lower(): value for key, value in scene.service.settings.items()}))


async def _sweep(settings: dict[str, Any]) -> None:
    orphans.SETTLE_S = 0.0
    async with open_context(Settings(_env_file=None, **settings)) as ctx:
        found = await orphans.sweep_orphans(ctx)
        assert found.trusted, found
