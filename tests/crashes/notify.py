"""Stories of what clients are told by webhook: kills while it is written and while it is sent (crash point W)."""

from __future__ import annotations

import json

from auditor import LOST, UNTRUE, Finding
from emulating import until
from receivers import Receiver, receiving, status

from crashes import trap
from crashes.case import CleanRun, case
from crashes.scene import Scene, slow_run

EVENTS = "SELECT id FROM events"
UNTOLD = "SELECT id FROM webhook_deliveries WHERE status = 'pending'"


@case("W", "killed before or after the n-th webhook is sent to a client", rounds=10)
def at_a_letter(scene: Scene) -> None:
    ears = listeners(scene, 2)
    trap.set(scene, "letter", ("before", "after")[scene.round % 2], 1 + scene.round // 2)
    trap.ask(scene, 2, webhook_url=ears[1].url)
    springs(scene)
    told(scene, ears)


@case("W", "killed at the n-th commit while two endpoints are told", rounds=16)
def at_a_commit(scene: Scene) -> None:
    ears = listeners(scene, 2)
    trap.set(scene, "commit", ("before", "after")[scene.round % 2], 1 + scene.round // 2)
    trap.ask(scene, 2)
    springs(scene)
    told(scene, ears)


@case("W", "killed at any moment while one receiver is slow and one fails at first", rounds=4)
def at_any_moment(scene: Scene) -> None:
    ears = listeners(scene, 3)
    ears[1].usual = slow
    ears[2].answers = [status(503)] * 3
    scene.provider.spoil(slow_run(0.2))
    for _ in range(4):
        trap.ask(scene, 3)
        scene.pause(0.6)
        scene.kill()
        scene.change("UPDATE webhook_deliveries SET due_at = 1 WHERE status = 'pending' AND lease_owner IS NULL")
        scene.service.start()
    told(scene, ears)


@case("W", "asked to stop while a receiver answers slowly, then started again", rounds=2)
def stopped_while_telling(scene: Scene) -> None:
    ears = listeners(scene, 2)
    ears[0].usual = slow
    trap.ask(scene, 6)
    scene.pause(1.0)
    assert scene.service.stop() == 0, scene.service.log()[-2000:]
    assert not scene.rows("SELECT id FROM webhook_deliveries WHERE lease_owner IS NOT NULL")
    scene.service.start()
    told(scene, ears)


async def slow(_reader: object, writer: object) -> None:
    import asyncio

    assert isinstance(writer, asyncio.StreamWriter)
    await asyncio.sleep(0.5)  # slow on purpose
    writer.write(status(200))


def listeners(scene: Scene, count: int) -> list[Receiver]:
    """A started service with so many endpoints, each at a receiver of its own."""
    trap.start(scene, WEBHOOK_ALLOW_CIDRS="127.0.0.0/8")
    ears = [scene.at_the_end.enter_context(receiving()) for _ in range(count)]
    client = scene.service.http.get("/api/v2/clients").json()["items"][0]["id"]
    for ear in ears:
        made = scene.service.http.post("/api/v2/webhook-endpoints", json={"url": ear.url, "client_id": client})
        assert made.status_code == 201, made.text
    return ears


def springs(scene: Scene) -> None:
    """The service has killed itself and is started again. Raises CleanRun when the place did not come so often."""
    process = scene.service.process
    assert process is not None
    if scene.kills:
        return  # while it was asked
    until(lambda: process.poll() is not None or is_told(scene), 30)
    if process.poll() is None:
        trap.remove(scene)
        raise CleanRun
    scene.restart()


def is_told(scene: Scene) -> bool:
    """Everything has ended, and nobody is still to be told."""
    return scene.is_settled() and not scene.rows(UNTOLD)


def told(scene: Scene, ears: list[Receiver]) -> None:
    """Every receiver got every event at least once, each under one id that always says the same."""
    until(lambda: is_told(scene), 60)
    events = {id for (id,) in scene.rows(EVENTS)}
    for number, ear in enumerate(ears):
        said: dict[str, bytes] = {}
        for letter in ear.got:
            if said.setdefault(letter.id, letter.body) != letter.body or json.loads(letter.body)["id"] != letter.id:
                scene.found.append(
                    Finding(UNTRUE, f"receiver {number} was told {said[letter.id]!r} and {letter.body!r}")
                )
        if missing := events - said.keys():
            scene.found.append(Finding(LOST, f"receiver {number} was never told {missing}"))
        if strange := said.keys() - events:
            scene.found.append(Finding(UNTRUE, f"receiver {number} was told {strange}, which never happened"))
