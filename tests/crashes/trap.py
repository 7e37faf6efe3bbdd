"""Traps in the service: it kills itself at the n-th time it comes by a place, once; no place is in the product.

Places are the borders of its steps: `commit` of the database, `create` `ask` `cancel` `upload` at the provider,
`store` of an output, its `file`, a provider's `word`, a `letter` to a client.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any, Literal

import httpx
from emulating import until

from crashes.case import CleanRun
from crashes.scene import Scene

SEAM = Path(__file__).parent / "seam"


def start(scene: Scene, **settings: str) -> None:
    """Start the service with places for traps, none of which is set."""
    path = os.pathsep.join(filter(None, (str(SEAM), os.environ.get("PYTHONPATH"))))
    scene.start(PYTHONPATH=path, CRASH_TRAP=str(_file(scene)), **settings)


def set(
    scene: Scene,
    place: str,
    side: Literal["before", "after"],
    nth: int = 1,
    *,
    text: str = "",
    lasting: bool = False,
    raises: bool = False,
) -> None:
    """From now on the n-th time counts; `text` must occur in the row or word that is worked on."""
    trap = {"place": place, "side": side, "nth": nth, "text": text, "lasting": lasting, "raises": raises}
    assert scene.service.process is not None
    _file(scene).with_suffix(".pid").write_text(str(scene.service.process.pid))
    new = _file(scene).with_suffix(".new")
    new.write_text(json.dumps(trap), "utf-8")
    new.replace(_file(scene))


def ask(scene: Scene, count: int = 1, kind: str = "image", **wanted: Any) -> list[str]:
    """Ask for so many; a request that the kill cuts off is made again with its Idempotency-Key after the start."""
    ids: list[str] = []
    for number in range(count):
        body = {"campaign_id": scene.service.campaign_id, "prompt": f"{kind} {scene.round}.{number}", **wanted}
        ids += _ask_until_answered(scene, kind, body)
    scene.service.accepted += ids
    return ids


def _ask_until_answered(scene: Scene, kind: str, body: dict[str, Any]) -> list[str]:
    key = {"idempotency-key": secrets.token_hex(8)}
    while True:
        try:
            answer = scene.service.http.post(f"/api/v2/generate/{kind}", json=body, headers=key)
        except httpx.TransportError:
            assert scene.service.process is not None
            scene.service.process.wait(10)
            scene.restart()
            continue
        assert answer.status_code == 202, answer.text
        accepted = answer.json()
        return [one["id"] for one in accepted.get("items", [accepted])]


def remove(scene: Scene) -> None:
    _file(scene).unlink(missing_ok=True)


def has_sprung(scene: Scene, within_s: float = 30.0) -> bool:
    """Wait until the service has killed itself, which is counted, or has nothing left to do."""
    process = scene.service.process
    assert process is not None
    if str(process.pid) != _file(scene).with_suffix(".pid").read_text():
        return True  # it has been noticed, counted and started again
    until(lambda: process.poll() is not None or scene.is_settled(), within_s)
    if process.poll() is None:
        return False
    scene.kill()
    return True


def springs(scene: Scene) -> None:
    """As `has_sprung`, and start it again. Raises CleanRun when the place did not come that often."""
    if not has_sprung(scene):
        remove(scene)
        raise CleanRun
    if scene.service.process is None or scene.service.process.poll() is not None:
        scene.service.start()


def _file(scene: Scene) -> Path:
    return scene.folder / "trap.json"
