"""Stories of requests on their way to the provider: queued, claimed, sent, answered, and killed anywhere between."""

from __future__ import annotations

from typing import Any

from auditor import creates_of
from emulating import until

from crashes import trap
from crashes.case import case
from crashes.scene import NO_WEBHOOKS, Scene, slow_run

SLOW_RUN = slow_run(0.3)


@case("C", "thirty are queued and it is killed ten times while they go out", rounds=2)
def thirty_queued(scene: Scene) -> None:
    scene.start(MAX_IN_FLIGHT="6")
    scene.provider.spoil(SLOW_RUN)
    ids = scene.ask(30)
    for number in range(10):
        sent = len(scene.provider.ledger["creates"])
        until(lambda sent=sent: len(scene.provider.ledger["creates"]) > sent or _all_sent(scene, ids))
        scene.pause(0.1 * (number % 3))
        scene.restart()


@case("C", "killed with the 202 on its way, before anything was claimed", rounds=4)
def killed_with_the_answer(scene: Scene) -> None:
    scene.start()
    for _ in range(4):
        scene.ask(2)
        scene.pause(0.03)
        scene.restart()


@case("C", "killed before the claim is committed", rounds=8)
def before_the_claim(scene: Scene) -> None:
    trap.start(scene)
    trap.set(scene, "commit", "before", 1 + scene.round, text="claim.<locals>.work")
    ask_and_be_killed(scene, 3)


@case("D", "claimed and killed before the create leaves", rounds=8)
def before_the_create(scene: Scene) -> None:
    trap.start(scene)
    trap.set(scene, "create", "before", 1 + scene.round % 6)
    ask_and_be_killed(scene, 6)


@case("D", "killed before the create leaves, then not sent again by itself", rounds=2)
def never_sent_is_said(scene: Scene) -> None:
    trap.start(scene)
    trap.set(scene, "create", "before")
    id = ask_and_never_hear(scene)
    assert not creates_of(scene.provider.ledger, id)
    scene.service.accepted.append(scene.service.retry(id)["id"])
    scene.restart()


@case("E", "taken by the provider and killed before its answer is kept", rounds=8)
def before_the_answer_is_kept(scene: Scene) -> None:
    trap.start(scene)
    trap.set(scene, "create", "after", 1 + scene.round % 6)
    all_complete(scene, ask_and_be_killed(scene, 6, many_unknown=True))


@case("E", "the same without webhooks: the provider's list tells", rounds=6)
def the_list_tells(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil(NO_WEBHOOKS)
    trap.set(scene, "create", "after", 1 + scene.round % 3)
    all_complete(scene, ask_and_be_killed(scene, 3, many_unknown=True))


@case("E", "the same without an address for webhooks", rounds=4)
def without_an_address(scene: Scene) -> None:
    trap.start(scene, BASE_URL="")
    trap.set(scene, "create", "after", 1 + scene.round % 3)
    trap.ask(scene, 3)
    trap.springs(scene)
    until(lambda: not scene.rows("SELECT id FROM generations WHERE status = 'submitting'"))


@case("E", "the same, neither webhook nor list tell: perhaps paid", rounds=2)
def nobody_tells(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil(NO_WEBHOOKS, {"kind": "list_empty"})
    trap.set(scene, "create", "after")
    ask_and_never_hear(scene)


@case("F", "the webhook comes before the answer, and a kill between them", rounds=6)
def webhook_first(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil({"kind": "webhook_before_answer"})
    trap.set(scene, "create", "after", 1 + scene.round % 2)
    all_complete(scene, ask_and_be_killed(scene, 2, many_unknown=True))


@case("Q", "creates hang; killed three times meanwhile", rounds=3)
def creates_hang(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "create_hang", "delay_s": 4.0})
    for _ in range(3):
        before = _made(scene)
        scene.ask(2)
        until(lambda before=before: _made(scene) == before + 2)
        scene.restart()


def _refusal(point: str, kind: str, **more: Any) -> None:
    @case(point, f"every second create meets {kind}, and it is killed twice", rounds=2)
    def refused(scene: Scene) -> None:
        scene.start()
        scene.provider.spoil({"kind": kind, "match": {"every": 2}, **more}, SLOW_RUN)
        for number in range(2):
            scene.ask(3)
            sent = 2 + 2 * number
            until(lambda sent=sent: len(scene.provider.ledger["creates"]) >= sent or _is_paused(scene))
            scene.pause(0.2)
            scene.restart_later()
        scene.kill()
        scene.provider.spoil()
        scene.let_time_pass()
        scene.service.start()


for _kind in ("create_401", "create_402", "create_422"):
    _refusal("P", _kind)
for _kind in ("create_500", "create_502", "create_503", "create_500_after", "create_bad_json"):
    _refusal("Q", _kind)
for _kind in ("reset_before", "reset_after"):
    _refusal("Q", _kind)
_refusal("O", "create_429", retry_after=1)


@case("O", "a burst of 429 is waited for, through two kills", rounds=3)
def burst_of_429(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "create_429", "retry_after": 1, "times": 12})
    ids = scene.ask(6)
    for _ in range(2):
        until(lambda: scene.provider.ledger["creates"])
        scene.pause(0.5)
        scene.restart_later()
    all_complete(scene, ids, unless_killed_in_between=True)


@case("Q", "a create outlasts our patience, and it is killed while it waits", rounds=1)
def slower_than_our_patience(scene: Scene) -> None:
    """The 60 seconds of a create pass for real; then the list tells."""
    scene.start()
    scene.provider.spoil({"kind": "create_hang", "delay_s": 75.0}, NO_WEBHOOKS)
    ids = scene.ask(2)
    for id in ids:
        scene.service.reach(id, "processing", "storing", "completed", within_s=90)
    scene.restart()


def ask_and_never_hear(scene: Scene) -> str:
    """Killed by the trap around its create; it is said that nobody knows, and that it may have been charged."""
    (id,) = trap.ask(scene)
    trap.springs(scene)
    scene.service.reach(id, "unclear")
    scene.let_the_deadline_pass()
    ended = scene.service.ended(id, "failed")
    assert ended["error"]["code"] == "submit_unknown" and ended["possibly_charged"], ended
    return id


def ask_and_be_killed(scene: Scene, count: int, *, many_unknown: bool = False) -> list[str]:
    """Ask, be killed by the trap that is set, start again; raises CleanRun when it did not spring."""
    ids = trap.ask(scene, count)
    trap.springs(scene)
    return [id for id in ids if not many_unknown or scene.is_known_to_provider(id)]


def all_complete(scene: Scene, ids: list[str], *, unless_killed_in_between: bool = False) -> None:
    """What the provider has is completed, although nobody saw its answer."""
    for id in ids:
        if not unless_killed_in_between or scene.is_known_to_provider(id):
            scene.service.ended(id, "completed", 40)


def _made(scene: Scene) -> int:
    return sum(create["created"] for create in scene.provider.ledger["creates"])


def _all_sent(scene: Scene, ids: list[str]) -> bool:
    return len(scene.provider.ledger["creates"]) >= len(ids) or scene.is_settled()


def _is_paused(scene: Scene) -> bool:
    return bool(scene.rows("SELECT name FROM providers WHERE paused_until > 1"))
