"""Listeners to events come back after each crash with the last id they heard: each event is told once, in order."""

from __future__ import annotations

from contextlib import suppress

from auditor import LOST, UNTRUE, Finding
from emulating import until
from listening import Ear

from crashes.case import case
from crashes.hear import hurry
from crashes.scene import Scene, slow_run

EVENTS = "SELECT id FROM events ORDER BY id"


def listen(scene: Scene, path: str = "/api/v2/events") -> Ear:
    """A listener that comes back for as long as the scene lasts; it hears everything from now on."""
    ear = Ear(scene.service.origin, path, again=True)
    scene.at_the_end.callback(ear.close)
    until(lambda: ear.open)
    return ear


def judge(scene: Scene, ears: list[Ear]) -> None:
    """Everything has happened: each heard every event, none twice, in the order of the commits."""
    expected = [id for (id,) in scene.rows(EVENTS)]
    with suppress(AssertionError):
        until(lambda: all(len(ear.ids) >= len(expected) for ear in ears), scene.patience_s)
    for ear in ears:
        missed, heard = set(expected) - set(ear.ids), ear.ids
        scene.found += [Finding(LOST, f"{ear.path} never told {id}") for id in sorted(missed)]
        if not missed and heard != expected:
            scene.found.append(Finding(UNTRUE, f"{ear.path} told {heard}, and there are {expected}"))


@case("W", "listeners come back through kills and hear every event once", rounds=6)
def through_kills(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.2))
    campaign = scene.service.campaign_id
    ears = [listen(scene), listen(scene, f"/api/v2/campaigns/{campaign}/events")]
    for _ in range(4):
        scene.ask(3)
        scene.pause(0.6)
        scene.restart_later()
    hurry(scene)
    judge(scene, ears)


@case("W", "listeners come back through ordered stops and hear every event once", rounds=3)
def through_stops(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.2))
    ears = [listen(scene) for _ in range(5)]
    for _ in range(3):
        scene.ask(3)
        scene.pause(0.4)
        if scene.service.stop() != 0:
            scene.found.append(Finding(UNTRUE, "it did not end well with open streams"))
        scene.let_time_pass()
        scene.service.start()
    hurry(scene)
    judge(scene, ears)
