"""Stories of what clients change meanwhile: cancel, retry, delete, copies, sources, the same request again."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
from emulating import png, until

from crashes import trap
from crashes.case import case
from crashes.scene import Scene, slow_run

STAGES = ("queued", "processing", "unclear", "storing")


@case("Y", "canceled while the provider works, and killed at the n-th commit", rounds=14)
def canceled_at_commit(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil(slow_run(1.0))
    (id,) = scene.ask()
    scene.service.reach(id, "processing")
    trap.set(scene, "commit", "after" if scene.round % 2 else "before", 1 + scene.round // 2)
    with suppress(httpx.TransportError):
        scene.service.cancel(id)
    trap.springs(scene)


@case("Y", "canceled and killed at once, in each stage", rounds=4)
def canceled_in_each_stage(scene: Scene) -> None:
    scene.start(MAX_IN_FLIGHT="1" if scene.round == 0 else "10")
    faults = ([slow_run(0.5)], [slow_run(1.5)], [{"kind": "reset_after"}, slow_run(2.0)], [{"kind": "output_slow"}])
    scene.provider.spoil(*faults[scene.round % 4])
    for _ in range(3):
        first, *_ = ids = scene.ask(2)
        with suppress(AssertionError):
            until(lambda id=first: scene.service.stage(id) == STAGES[scene.round % 4], 1.5)
        answers = [scene.service.cancel(id).status_code for id in ids]
        assert set(answers) <= {200, 202, 409}, answers
        scene.pause(0.2)
        scene.restart()


@case("Y", "the cancel and the end race, and the kill with both", rounds=6)
def cancel_and_end_race(scene: Scene) -> None:
    scene.start()
    for _ in range(2):
        scene.provider.spoil(slow_run(0.3))
        for id in scene.ask(3):
            scene.pause(0.15)
            scene.service.cancel(id)
        scene.pause(0.1)
        scene.restart()


@case("Y", "killed between the word to the provider to stop and what it says", rounds=3)
def killed_at_the_cancel(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil(slow_run(30.0))
    (id,) = scene.ask()
    scene.service.reach(id, "processing")
    trap.set(scene, "cancel", ("before", "after")[scene.round % 2])
    scene.service.cancel(id)
    trap.springs(scene)
    scene.service.ended(id, "canceled", 40)


@case("Y", "canceled after it began, and killed around what is counted", rounds=6)
def canceled_after_the_start(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil({"kind": "stuck"})
    (id,) = scene.ask()
    scene.service.reach(id, "processing")
    until(lambda: scene.rows("SELECT id FROM generations WHERE began_at IS NOT NULL"))
    place = ("cancel", "commit", "commit")[scene.round % 3]
    trap.set(scene, place, "after" if scene.round % 2 else "before", 1 + scene.round // 3)
    with suppress(httpx.TransportError):
        scene.service.cancel(id)
    trap.springs(scene)
    scene.service.cancel(id)  # in case the kill came before the wish was kept
    assert scene.service.ended(id, "canceled", 40)["possibly_charged"]


@case("Y", "a success without a file, and a kill around what is counted", rounds=4)
def empty_success(scene: Scene) -> None:
    trap.start(scene)
    scene.provider.spoil({"kind": "output_empty"}, slow_run(1.0))
    (id,) = scene.ask()
    scene.service.reach(id, "processing")
    trap.set(scene, "commit", "after" if scene.round % 2 else "before", 2 + scene.round // 2)
    trap.springs(scene)
    assert scene.service.ended(id, "failed", 40)["possibly_charged"]


@case("Y", "a film is canceled while it waits, then a kill", rounds=3)
def waiting_is_canceled(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.5))
    film, other = scene.ask(2, "video")
    assert scene.service.cancel(film).status_code in (200, 202)
    scene.pause(0.5)
    scene.restart()
    scene.service.cancel(scene.service.get(other)["source"]["image_id"])
    scene.restart()


@case("Y", "retried while it is killed: each retry is one generation", rounds=4)
def retried(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "failed"})
    ids = scene.ask(2) + scene.ask(1, "video")
    for id in ids:
        scene.service.ended(id, "failed")
    scene.provider.spoil(slow_run(0.3))
    for id in ids:
        key = {"idempotency-key": secrets.token_hex(8)}
        first = _post(scene, f"/api/v2/generations/{id}/retry", key)
        scene.pause(0.2)
        scene.restart()
        again = _post(scene, f"/api/v2/generations/{id}/retry", key)
        assert again == first, (first, again)
        scene.service.accepted.append(str(first))


@case("Y", "deleted while it is killed: row and bytes go, nothing else", rounds=4)
def deleted(scene: Scene) -> None:
    scene.start()
    ids = scene.ask(4) + scene.ask(1, "video")
    for id in ids:
        scene.service.ended(id, "completed")
    with ThreadPoolExecutor(3) as pool:
        for id in ids[1:]:
            pool.submit(_delete, scene, id)
        scene.pause(0.1)
        scene.kill()
    scene.service.start()
    for id in ids[1:]:
        assert scene.service.http.delete(f"/api/v2/generations/{id}").status_code in (204, 404)
        scene.service.accepted.remove(id)
    scene.restart()
    until(lambda: not scene.rows("SELECT file_name FROM trash"), 40)


@case("Y", "a campaign is deleted with all in it, and it is killed meanwhile", rounds=3)
def campaign_deleted(scene: Scene) -> None:
    scene.start()
    kept = scene.ask(2)
    old, scene.service.campaign_id = scene.service.campaign_id, scene.service.campaign("doomed")
    doomed = scene.ask(3)
    for id in kept + doomed:
        scene.service.ended(id, "completed")
    assert scene.service.http.delete(f"/api/v2/campaigns/{scene.service.campaign_id}").status_code == 204
    scene.pause(0.1)
    scene.restart()
    scene.service.campaign_id = old
    scene.service.accepted[:] = kept
    until(lambda: not scene.rows("SELECT file_name FROM trash"), 40)


@case("S", "four copies at a time, and three kills", rounds=3)
def copies(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.2))
    for _ in range(3):
        trap.ask(scene, 1, copies=4)
        scene.pause(0.3)
        scene.restart()


@case("S", "films wait for their start images through three kills", rounds=4)
def films_wait(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.3))
    for _ in range(3):
        scene.ask(2, "video")
        scene.pause(0.8)
        scene.restart()


@case("S", "killed around the upload of what a film starts from", rounds=4)
def around_the_upload(scene: Scene) -> None:
    trap.start(scene)
    asset = scene.service.upload(png())
    trap.set(scene, "upload", ("before", "after")[scene.round % 2], 1 + scene.round // 2)
    trap.ask(scene, 2, "video", asset_id=asset)
    trap.springs(scene)


@case("B", "the same request again and again, racing with kills", rounds=4)
def the_same_again(scene: Scene) -> None:
    scene.start()
    body = {"campaign_id": scene.service.campaign_id, "prompt": "the same", "copies": 2}
    key = {"idempotency-key": secrets.token_hex(8)}
    told: list[str] = []
    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(_try, scene, body, key) for _ in range(12)]
            scene.pause(0.05)
            scene.kill()
            told += [answer for one in asked if (answer := one.result())]
        scene.service.start()
    told.append(_try(scene, body, key) or "")
    assert len(set(told)) == 1, told
    assert scene.rows("SELECT COUNT(*) FROM generations") == [(2,)]
    scene.service.accepted += told[0].split()


def _try(scene: Scene, body: dict[str, object], headers: dict[str, str]) -> str | None:
    """The ids that were answered, or None when the kill came first."""
    with suppress(httpx.TransportError):
        url = f"{scene.service.origin}/api/v2/generate/image"
        answer = httpx.post(url, json=body, headers=headers, timeout=20)
        assert answer.status_code == 202, answer.text
        return " ".join(one["id"] for one in answer.json()["items"])
    return None


def _delete(scene: Scene, id: str) -> None:
    with suppress(httpx.TransportError):
        httpx.delete(f"{scene.service.origin}/api/v2/generations/{id}", timeout=20)


def _post(scene: Scene, path: str, headers: dict[str, str]) -> str:
    answer = scene.service.http.post(path, json={}, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])
