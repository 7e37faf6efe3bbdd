"""Stories of the machine: starts and stops cut off, a clock that jumps, the service stopped, or started twice."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import suppress

import httpx
from emulating import until

from crashes.case import case
from crashes.hear import hurry
from crashes.scene import NO_WEBHOOKS, Scene, slow_run
from crashes.submit import all_complete

TAKE = "UPDATE generations SET lease_owner = 'another-worker', due_at = :until WHERE status = 'storing'"
FAKETIME = shutil.which("faketime")


@case("S", "two hundred in flight, killed ten times", rounds=1)
def two_hundred(scene: Scene) -> None:
    scene.start(MAX_IN_FLIGHT="200")
    scene.provider.spoil(slow_run(2.0))
    scene.ask(200)
    for _ in range(10):
        scene.pause(0.6)
        scene.restart()


@case("S", "killed five times at any moment, with everything going wrong", rounds=6)
def at_any_moment(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(
        slow_run(0.2),
        {"kind": "reset_after", "match": {"every": 5}},
        {"kind": "webhook_lost", "match": {"every": 4}},
        {"kind": "output_slow", "bytes_per_s": 200_000, "match": {"every": 3}},
    )
    for _ in range(5):
        scene.ask(4)
        scene.ask(1, "video")
        scene.pause(0.6)
        scene.restart()
    hurry(scene)


@case("S", "killed while it starts, again and again, with work waiting", rounds=4)
def killed_while_starting(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.3))
    scene.ask(6)
    scene.kill()
    for _ in range(6):
        scene.service.process = process = scene.service.spawn()
        with suppress(subprocess.TimeoutExpired):
            process.wait(scene.chance.random() * 2.5)
        scene.kill()


@case("Z", "killed during the very first start, again and again", rounds=3)
def killed_at_first_start(scene: Scene) -> None:
    for _ in range(5):
        scene.service.process = process = scene.service.spawn()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3 + scene.chance.random() * 2)
        scene.kill()
    scene.start()
    scene.ask(2)


@case("V", "asked to stop, and killed before it has", rounds=6)
def killed_while_stopping(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.3), {"kind": "output_slow", "bytes_per_s": 100_000})
    for _ in range(3):
        scene.ask(3)
        scene.pause(0.6)
        os.kill(pid(scene), signal.SIGTERM)
        scene.pause(0.5)
        scene.restart()


@case("V", "asked to stop in the middle of everything, it ends well", rounds=4)
def stopped_well(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "delay", "on": "create", "delay_s": 0.5}, slow_run(0.5))
    for _ in range(2):
        ids = scene.ask(4)
        scene.pause(1.0)
        assert scene.service.stop() == 0, scene.service.log()[-2000:]
        held = scene.rows("SELECT id FROM generations WHERE lease_owner IS NOT NULL OR status = 'submitting'")
        assert not held, held
        scene.service.start()
        all_complete(scene, ids)


@case("V", "asked to stop while an upload is stuck and a create hangs", rounds=1)
def stopped_with_an_upload(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "create_hang", "delay_s": 40.0})
    scene.ask(2)
    until(lambda: len(scene.provider.ledger["creates"]) == 2)
    with stuck_upload(scene):
        began = time.monotonic()
        assert scene.service.stop(45) == 0, scene.service.log()[-2000:]
        assert time.monotonic() - began < 30
    scene.service.start()


@case("S", "stopped for longer than its leases, then it goes on", rounds=1)
def stopped_beyond_leases(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "create_hang", "delay_s": 2.0}, {"kind": "output_slow", "bytes_per_s": 60_000})
    scene.ask(4)
    scene.pause(1.0, after_s=1.0)
    os.kill(pid(scene), signal.SIGSTOP)
    time.sleep(32)  # a lease is 30 s
    os.kill(pid(scene), signal.SIGCONT)
    scene.ask(1)
    until(scene.is_settled, 60)
    scene.restart()


@case("T", "stopped, its rows taken by another, then it goes on: fenced", rounds=3)
def fenced(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "output_slow", "bytes_per_s": 12_000})  # some are still fetched the second time
    ids = scene.ask(3)
    until(lambda: scene.provider.ledger["downloads"] >= 2)
    for _ in range(2):
        taken = _taken_by_another(scene)
        os.kill(pid(scene), signal.SIGCONT)
        for id in taken:
            until(lambda id=id: not _is_held(scene, id, "another-worker"), 30)
    scene.restart()
    for id in ids:
        scene.service.ended(id, "completed", 40)


@case("T", "started twice by mistake: the second is refused", rounds=3)
def started_twice(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil(slow_run(0.5))
    scene.ask(4)
    second = scene.service.spawn()
    assert second.wait(30) != 0
    scene.kill()
    both = [scene.service.spawn(), scene.service.spawn()]
    until(lambda: any(one.poll() is not None for one in both), 30)
    (scene.service.process,) = [one for one in both if one.poll() is None]
    until(lambda: _answers(scene), 30)
    scene.restart()


def _clock(name: str, offset: str) -> None:
    @case("U", f"after a kill the clock is {name}", rounds=2, here=bool(FAKETIME))
    def clock_jumps(scene: Scene) -> None:
        scene.start()
        scene.provider.spoil(slow_run(0.5), NO_WEBHOOKS)
        ids = scene.ask(3)
        scene.ask(1, "video")
        for id in ids:
            scene.service.reach(id, "processing")  # and asked about at a time that is far away by the new clock
        scene.kill()
        scene.service.start(under=[str(FAKETIME), "-f", offset])
        ids += scene.ask(2)
        for id in ids:
            if scene.is_known_to_provider(id):
                scene.service.ended(id, "completed", 60)
        scene.restart()


for _name, _offset in (("an hour behind", "-1h"), ("ten minutes ahead", "+10m")):
    _clock(_name, _offset)


def stuck_upload(scene: Scene) -> socket.socket:
    """A client that sends half of an asset and then nothing."""
    host, _, port = scene.service.origin.removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)))
    client.sendall(
        f"POST /api/v2/assets HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 9000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode()
    )
    return client


def pid(scene: Scene) -> int:
    assert scene.service.process is not None
    return int(scene.service.process.pid)


def _taken_by_another(scene: Scene) -> list[str]:
    """Stop the service; as if its leases had ended, somebody else has its rows for two seconds."""
    until(lambda: scene.rows("SELECT id FROM generations WHERE lease_owner IS NOT NULL AND status = 'storing'"))
    os.kill(pid(scene), signal.SIGSTOP)
    until_ms = int((time.time() + 2) * 1000)
    with suppress(sqlite3.OperationalError):  # stopped inside a transaction: then nothing was taken
        scene.change(TAKE, until=until_ms)
    return [id for (id,) in scene.rows("SELECT id FROM generations WHERE lease_owner = 'another-worker'")]


def _is_held(scene: Scene, id: str, owner: str) -> bool:
    return bool(scene.rows("SELECT id FROM generations WHERE id = :id AND lease_owner = :owner", id=id, owner=owner))


def _answers(scene: Scene) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{scene.service.origin}/healthz", timeout=5).status_code == 200
    return False
