"""Stories of the provider's word: webhooks twice, late, false or never, polls, and every end, with kills between."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
from emulating import until
from standardwebhooks import Webhook

from backend.emulator import WEBHOOK_SECRET
from crashes import trap
from crashes.case import case
from crashes.scene import NO_WEBHOOKS, Scene, slow_run

AT_WORK = """
SELECT id FROM generations WHERE finished_at IS NULL AND (lease_owner IS NOT NULL OR status IN ('queued', 'submitting'))
"""
SLOW_RUN = slow_run(0.4)


@case("I", "every webhook is lost, and it is killed while the provider works", rounds=4)
def webhooks_lost(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(NO_WEBHOOKS, SLOW_RUN)
    scene.ask(3)
    for _ in range(2):
        scene.pause(0.5)
        scene.restart_later()
    hurry(scene)


@case("I", "webhooks come while it is down for longer than they are repeated", rounds=2)
def down_for_long(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(SLOW_RUN, NO_WEBHOOKS)
    scene.ask(4)
    scene.pause(0.5)
    scene.kill()
    until(lambda: all(create["created"] for create in scene.provider.ledger["creates"]))
    until(lambda: len(scene.provider.ledger["ends"]) == len(scene.provider.ledger["creates"]))
    scene.let_time_pass()
    scene.service.start()


def _trouble(kind: str) -> None:
    @case("I", f"no webhook comes, polls meet {kind}, and it is killed twice", rounds=2)
    def polls_fail(scene: Scene) -> None:
        scene.start()
        scene.provider.spoil(NO_WEBHOOKS, SLOW_RUN, {"kind": kind, "times": 5})
        scene.ask(3)
        for _ in range(2):
            scene.pause(0.5)
            scene.restart_later()
        scene.provider.spoil()
        hurry(scene)


for _kind in ("get_500", "get_404", "get_429"):
    _trouble(_kind)


def _bent(point: str, name: str, *faults: dict[str, Any], rounds: int = 3) -> None:
    @case(point, name, rounds=rounds)
    def webhooks_bent(scene: Scene) -> None:
        scene.start()
        scene.provider.spoil(*faults)
        for _ in range(2):
            scene.ask(3)
            scene.pause(0.6)
            scene.restart()
        hurry(scene)


_bent("H", "each webhook comes five times, two kills among them", {"kind": "webhook_duplicate", "count": 5}, SLOW_RUN)
_bent("F", "webhooks come in the wrong order, two kills among them", {"kind": "webhook_out_of_order"}, SLOW_RUN)
_bent("F", "webhooks come before the answers, two kills among them", {"kind": "webhook_before_answer"}, SLOW_RUN)
_bent("H", "webhooks come when all is over, two kills before that", {"kind": "webhook_late", "delay_s": 2.0}, rounds=2)
_bent("U", "no webhook's signature is right: polls do it, through two kills", {"kind": "webhook_bad_signature"})


@case("H", "one webhook a hundred times at once, and a kill among them", rounds=4)
def a_hundred_times(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(1.0))
    (id,) = scene.ask()
    scene.service.reach(id, "processing")
    body = body_of(scene, id)
    with ThreadPoolExecutor(10) as pool:
        telling = [pool.submit(tell, scene, id, body, "msg_the_same") for _ in range(100)]
        scene.pause(0.2)
        scene.kill()
        for one in telling:
            one.result()
    scene.service.start()
    tell(scene, id, body, "msg_the_same")
    kept = scene.rows("SELECT COUNT(*) FROM deliveries WHERE webhook_id = 'msg_the_same'")
    assert kept == [(1,)], kept


@case("H", "killed right after a webhook was taken with 200", rounds=6)
def taken_and_killed(scene: Scene) -> None:
    """What is kept is believed after the start: nobody tells it again."""
    trap.start(scene)
    trap.set(scene, "word", "before", 1 + scene.round % 4)
    trap.ask(scene, 2)
    trap.springs(scene)


@case("H", "webhooks of a generation that was deleted meanwhile", rounds=2)
def deleted_meanwhile(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(NO_WEBHOOKS)
    (id,) = scene.ask()
    scene.service.reach(id, "processing")
    body = body_of(scene, id)
    scene.restart_later()
    scene.service.ended(id, "completed")
    assert tell(scene, id, body) == 200
    scene.restart()
    assert scene.service.http.delete(f"/api/v2/generations/{id}").status_code == 204
    scene.service.accepted.remove(id)
    scene.restart()
    assert tell(scene, id, body) == 404


@case("G", "after the answer, a signed webhook names another prediction", rounds=3)
def another_after(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.7), NO_WEBHOOKS)
    (id,) = scene.ask()
    scene.service.reach(id, "processing")
    body = body_of(scene, id) | {"id": "another", "status": "failed", "error": "not yours"}
    assert tell(scene, id, body) == 200
    scene.restart_later()
    scene.service.ended(id, "completed", 40)


@case("G", "the answer names another prediction than the webhook before it", rounds=3)
def answer_names_another(scene: Scene) -> None:
    """What was heard of first is kept; the other is stopped, so that it need not be paid."""
    scene.start()
    scene.provider.spoil({"kind": "create_hang", "delay_s": 1.0}, slow_run(20.0), NO_WEBHOOKS)
    (id,) = scene.ask()
    until(lambda: scene.is_known_to_provider(id))
    (create,) = scene.provider.ledger["creates"]
    body = scene.provider.get(create["prediction_id"]) | {"id": "another", "status": "processing"}
    assert tell(scene, id, body) == 200
    until(lambda: scene.provider.ledger["cancels"])
    assert '"event": "second_prediction"' in scene.service.log()
    for _ in range(4):
        scene.restart_later()
        scene.pause(0.5)
    hurry(scene)
    assert scene.service.ended(id, "failed", 40)["possibly_charged"]


@case("G", "before the answer, a signed webhook of another generation comes", rounds=3)
def of_another_generation(scene: Scene) -> None:
    """The account's signature is right and the address is, but the prediction reports elsewhere."""
    scene.start()
    first, *_ = scene.ask()
    scene.service.ended(first, "completed")
    body = body_of(scene, first)
    scene.provider.spoil({"kind": "create_hang", "delay_s": 2.0}, NO_WEBHOOKS)
    (id,) = scene.ask(prompt="the second")
    until(lambda: scene.is_known_to_provider(id))
    assert tell(scene, id, body) == 200
    scene.restart()
    scene.service.ended(id, "completed", 40)


def _ends(kind: str, ends: str, **more: Any) -> None:
    @case("R", f"the provider says {kind}, with two kills on the way", rounds=2)
    def ends_so(scene: Scene) -> None:
        scene.start()
        scene.provider.spoil({"kind": kind, **more}, SLOW_RUN, {"kind": "webhook_lost", "match": {"every": 2}})
        ids = scene.ask(4)
        for _ in range(2):
            scene.pause(0.5)
            scene.restart_later()
        hurry(scene)
        for id in ids:
            if scene.is_known_to_provider(id):
                scene.service.ended(id, ends)


_ends("failed", "failed")
_ends("canceled", "canceled")
_ends("aborted", "canceled")
_ends("unknown_status", "completed")


def hurry(scene: Scene) -> None:
    """What would be looked at later, as what no webhook tells of, is due after a kill: so often as it takes."""
    scene.pause(0.3)
    for _ in range(8):
        with suppress(AssertionError):
            until(lambda: scene.is_settled() or not scene.rows(AT_WORK), 10)
        scene.restart_later()
        if scene.is_settled():
            return


def body_of(scene: Scene, id: str) -> dict[str, Any]:
    """What the provider would tell of it now."""
    until(lambda: scene.rows("SELECT provider_id FROM generations WHERE id = :id", id=id)[0][0])
    ((theirs,),) = scene.rows("SELECT provider_id FROM generations WHERE id = :id", id=id)
    return scene.provider.get(theirs)


def tell(scene: Scene, id: str, body: dict[str, Any], message: str = "msg_told") -> int | None:
    """A webhook in the provider's name; the status of the answer, if there is one."""
    ((address,),) = {(create["webhook"],) for create in scene.provider.ledger["creates"] if id in create["webhook"]}
    text, at = json.dumps(body), datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(WEBHOOK_SECRET).sign(message, at, text),
    }
    with suppress(httpx.TransportError):
        return httpx.post(address, content=text, headers=headers, timeout=30).status_code
    return None
