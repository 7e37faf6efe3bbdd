"""Killed while it accepts: a request that is sent again with its key finds the same generation, or makes the first."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulating import until

from crashes import strace
from crashes.case import case
from crashes.scene import Scene

TRACED = strace.works()
KILLS = 3  # in a round, each at a later call


@dataclass
class Wish:
    """A request with its Idempotency-Key, and the ids it was answered with."""

    key: str
    kind: str = "image"
    more: dict[str, Any] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def send(self, scene: Scene) -> None:
        """Send it, perhaps again: the answer is always the same."""
        answer = scene.service.http.post(
            f"/api/v2/generate/{self.kind}",
            json={"campaign_id": scene.service.campaign_id, "prompt": self.key, **self.more},
            headers={"idempotency-key": self.key},
        )
        assert answer.status_code == 202, answer.text
        ids = [item["id"] for item in answer.json().get("items", [answer.json()])]
        scene.service.accepted += ids
        assert self.ids in ([], ids), f"{self.key} was {self.ids} and is {ids}"
        self.ids = ids

    def kept(self, scene: Scene) -> list[str]:
        """What the database has of it."""
        found = "SELECT id FROM generations WHERE prompt = :key AND kind = :kind ORDER BY id"
        return sorted(id for (id,) in scene.rows(found, key=self.key, kind=self.kind))


def killed_and_asked_again(
    scene: Scene, wishes: Sequence[Wish], calls: str, when: int, files: Sequence[Path] = (), *, threads: bool = True
) -> None:
    """Kill at the n-th call while these are asked for, beside each other; then each is there once, whole."""

    def ask() -> None:
        for sent in [pool.submit(wish.send, scene) for wish in wishes]:
            sent.result()
        until(lambda: strace.is_down(scene.service) or not scene.rows())

    with ThreadPoolExecutor(len(wishes)) as pool:
        strace.killed_at(scene, calls, when, ask, files, threads=threads)
    for wish in wishes:
        before = wish.kept(scene)
        wish.send(scene)
        assert before in ([], sorted(wish.ids)), f"{before} were half of {wish.ids}"
        assert wish.kept(scene) == sorted(wish.ids)


def wal(scene: Scene) -> list[Path]:
    return [scene.folder / "reelhook.db-wal"]


def moments(scene: Scene, step: int = 1) -> range:
    """Which calls are hit in this round: the next ones."""
    first = scene.round * KILLS * step + 1
    return range(first, first + KILLS * step, step)


@case("A", "killed at the n-th write of an accept", rounds=10, here=TRACED)
def written(scene: Scene) -> None:
    scene.start()
    for n in moments(scene):
        killed_and_asked_again(scene, [Wish(f"write {n}")], "pwrite64", n, wal(scene))


@case("A", "killed at the n-th sync of an accept", rounds=4, here=TRACED)
def synced(scene: Scene) -> None:
    scene.start()
    for n in moments(scene):
        killed_and_asked_again(scene, [Wish(f"sync {n}")], strace.SYNCS, n, wal(scene))


@case("A", "four copies are accepted whole or not at all", rounds=10, here=TRACED)
def copies(scene: Scene) -> None:
    scene.start()
    for n in moments(scene, 2):
        killed_and_asked_again(scene, [Wish(f"copies {n}", more={"copies": 4})], "pwrite64", n, wal(scene))


@case("A", "a video and its start image are accepted together", rounds=8, here=TRACED)
def start_image(scene: Scene) -> None:
    scene.start()
    for n in moments(scene, 2):
        killed_and_asked_again(scene, [Wish(f"video {n}", "video")], "pwrite64", n, wal(scene))


@case("A", "many accepts share a commit that is cut off", rounds=8, here=TRACED)
def shared(scene: Scene) -> None:
    scene.start()
    for n in moments(scene):
        wishes = [Wish(f"shared {n} {number}") for number in range(12)]
        killed_and_asked_again(scene, wishes, "pwrite64" if n % 3 else "fdatasync", 9 * n if n % 3 else n, wal(scene))


@case("B", "killed at the n-th word to a client, after the commit", rounds=5, here=TRACED)
def unanswered(scene: Scene) -> None:
    scene.start()
    for n in moments(scene):
        killed_and_asked_again(scene, [Wish(f"word {n}")], strace.WORDS, n, threads=False)


@case("B", "killed at a random moment under a crowd with keys", rounds=8)
def crowd(scene: Scene) -> None:
    scene.start()
    for kill in range(KILLS):
        wishes = [Wish(f"crowd {kill} {number}", more={"copies": 1 + number % 3}) for number in range(10)]
        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(wish.send, scene) for wish in wishes]
            asked[scene.chance.randrange(10)].exception()
            scene.restart()
            assert not [error for one in asked if isinstance(error := one.exception(), AssertionError)]
        for wish in wishes:
            wish.send(scene)
            assert wish.kept(scene) == sorted(wish.ids)
