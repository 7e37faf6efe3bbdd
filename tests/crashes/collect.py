"""Stories of results on their way into the storage: expiring, damaged, half fetched, and rows nobody survives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from emulating import png, until

from crashes import trap
from crashes.case import CleanRun, case
from crashes.hear import hurry
from crashes.scene import Scene

SLOW = {"kind": "output_slow", "bytes_per_s": 60_000}
STORING = "SELECT id FROM generations WHERE status = 'storing' AND lease_owner IS NOT NULL"
Life = Callable[[Scene], Any]


@case("J", "outputs expire while it is down: fetched, or said to be gone", rounds=3)
def expire_while_down(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(SLOW)
    ids = scene.ask(3)
    until(lambda: scene.provider.ledger["downloads"] >= 2)
    scene.kill()
    for (theirs,) in scene.rows("SELECT provider_id FROM generations WHERE provider_id IS NOT NULL"):
        httpx.post(f"{scene.provider.server.origin}/emulator/expire/{theirs}").raise_for_status()
    scene.change("UPDATE generations SET outputs_expire_at = 1 WHERE status = 'storing'")
    scene.service.start()
    for id in ids:
        ended = scene.service.ended(id, within_s=40)
        assert ended["status"] == "completed" or ended["error"]["code"] in ("output_expired", "submit_unknown"), ended
        assert ended["status"] == "completed" or ended["possibly_charged"], ended


@case("S", "killed twice while it downloads: fetched again, no half file", rounds=4)
def while_downloading(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(SLOW)
    scene.ask(3)
    scene.ask(1, "video", asset_id=scene.service.upload(png()))
    for _ in range(2):
        until(lambda: scene.is_settled() or scene.rows(STORING))
        scene.pause(0.3)
        scene.restart()


@case("S", "killed when the file has its name, before its row has it", rounds=4)
def file_without_row(scene: Scene) -> None:
    trap.start(scene)
    trap.set(scene, "file", "after", 1 + scene.round % 2)
    trap.ask(scene, 1)
    trap.ask(scene, 1, "video")
    trap.springs(scene)


@case("S", "killed between two files of one prediction: none is lost, none is fetched twice", rounds=4)
def between_files(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil({"kind": "output_many", "count": 3})
    trap.set(scene, "file", "after", 1 + scene.round)
    (id,) = trap.ask(scene, 1)
    trap.springs(scene)
    ended = scene.service.ended(id, "completed", 60)
    assert [file["media"]["state"] for file in ended["files"]] == ["read"] * 3, ended
    assert scene.provider.ledger["downloads"] == 3, scene.provider.ledger["downloads"]


@case("S", "killed twice at any moment while several files come", rounds=3)
def several_files(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "output_many", "count": 4}, {"kind": "output_404", "match": {"every": 5}})
    ids = scene.ask(3)
    for _ in range(2):
        until(lambda: scene.is_settled() or scene.rows(STORING))
        scene.pause(0.3)
        scene.restart()
    hurry(scene)
    for id in ids:
        assert len(scene.service.ended(id, "completed", 60)["files"]) == 4


def _spoiled(kind: str, **more: Any) -> None:
    @case("J", f"every second output is {kind}, and it is killed twice", rounds=2)
    def outputs_spoiled(scene: Scene) -> None:
        scene.start(MAX_OUTPUT_MB="3")
        scene.provider.spoil({"kind": kind, "match": {"every": 2}, **more})
        for _ in range(2):
            scene.ask(3)
            scene.pause(0.8)
            scene.restart()
        hurry(scene)


for _kind in ("404", "truncated", "short", "html", "garbage", "huge", "gzip"):
    _spoiled(f"output_{_kind}")
for _kind in ("other_host", "list", "many", "object", "empty", "wrong_kind", "data_uri", "unframed", "chunked"):
    _spoiled(f"output_{_kind}")


@case("X", "a row that kills whoever stores it takes no other with it", rounds=1)
def poison(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil({"kind": "output_slow", "bytes_per_s": 30_000})
    trap.set(scene, "store", "before", text="poison", lasting=True)
    others = trap.ask(scene, 4, prompt="harmless")
    bad = trap.ask(scene, 1, prompt="poison")
    while not _ended(scene, bad[0]) and scene.kills < 20:
        _be_killed_or(scene, lambda: _ended(scene, bad[0]))
    assert scene.service.get(bad[0])["error"]["code"] == "provider_failed", scene.service.get(bad[0])
    assert scene.service.get(bad[0])["possibly_charged"]
    for id in others:
        scene.service.ended(id, "completed", 60)


@case("X", "a webhook that kills whoever reads it is set aside", rounds=1)
def poisonous_webhook(scene: Scene) -> None:
    trap.start(scene)
    trap.set(scene, "word", "before", text="poison", lasting=True)
    others = trap.ask(scene, 3, prompt="harmless")
    trap.ask(scene, 1, prompt="poison")
    while not scene.is_settled() and scene.kills < 20:
        _be_killed_or(scene, scene.is_settled)
    for id in others:
        scene.service.ended(id, "completed", 60)


@case("X", "a row that fails whenever it is stored ends, and the others go on", rounds=1)
def fails_always(scene: Scene) -> None:
    trap.start(scene)
    trap.set(scene, "store", "before", text="poison", lasting=True, raises=True)
    bad = trap.ask(scene, 1, prompt="poison")
    others = trap.ask(scene, 3, prompt="harmless")
    tries = 0
    while not _ended(scene, bad[0]):
        until(lambda tries=tries: _tries(scene, bad[0]) > tries or _ended(scene, bad[0]))
        tries = _tries(scene, bad[0])
        scene.restart()
    for id in others:
        scene.service.ended(id, "completed", 60)


def _life(name: str, tell: Life, *, rounds: int) -> None:
    """The n-th commit of a life, n rising until there is no n-th."""

    @case("W", f"killed after the n-th commit of {name}", rounds=rounds)
    def after_commit(scene: Scene) -> None:
        _killed_at_commit(scene, "after", tell)

    @case("W", f"killed before the n-th commit of {name}", rounds=rounds)
    def before_commit(scene: Scene) -> None:
        _killed_at_commit(scene, "before", tell)


def _killed_at_commit(scene: Scene, side: Any, tell: Life) -> None:
    trap.start(scene)
    trap.set(scene, "commit", side, 1 + scene.round)
    tell(scene)
    if scene.round > 60:
        raise CleanRun
    trap.springs(scene)


def an_image(scene: Scene) -> None:
    trap.ask(scene)


def a_film(scene: Scene) -> None:
    trap.ask(scene, 1, "video", copies=2)


def a_failure(scene: Scene) -> None:
    scene.provider.spoil({"kind": "failed"})
    trap.ask(scene, 1, "video")


_life("an image", an_image, rounds=20)
_life("two films and their start image", a_film, rounds=30)
_life("a film whose start image fails", a_failure, rounds=14)


def _ended(scene: Scene, id: str) -> bool:
    return bool(scene.rows("SELECT id FROM generations WHERE id = :id AND finished_at IS NOT NULL", id=id))


def _tries(scene: Scene, id: str) -> int:
    return int(scene.rows("SELECT attempts FROM generations WHERE id = :id", id=id)[0][0])


def _be_killed_or(scene: Scene, enough: Callable[[], bool]) -> None:
    process = scene.service.process
    assert process is not None
    until(lambda: process.poll() is not None or enough(), 60)
    if process.poll() is not None:
        scene.restart()
