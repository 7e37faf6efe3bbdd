"""Stories of a provider that is a process too: stopped, killed, forgetful, slower than every deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from emulating import TOKEN, Provider, until

from backend.cli.processes import COMMAND, free_port
from crashes.case import case
from crashes.hear import hurry
from crashes.scene import NO_WEBHOOKS, Scene


@case("I", "the provider is away when it starts, and comes back", rounds=2)
def provider_away(scene: Scene) -> None:
    other = elsewhere(scene)
    scene.start(REPLICATE_BASE_URL=f"{other.server.origin}/v1")
    scene.ask(2)
    os.kill(other.process.pid, signal.SIGSTOP)
    scene.ask(2)
    scene.pause(1.0)
    scene.restart()
    scene.pause(1.0)
    scene.restart()
    os.kill(other.process.pid, signal.SIGCONT)


@case("E", "the provider is stopped with creates on their way, and a kill", rounds=3)
def provider_stopped(scene: Scene) -> None:
    other = elsewhere(scene)
    scene.start(REPLICATE_BASE_URL=f"{other.server.origin}/v1")
    for _ in range(2):
        scene.ask(3)
        scene.pause(0.2)
        os.kill(other.process.pid, signal.SIGSTOP)
        time.sleep(0.3)  # in which whatever it asks for hangs
        scene.kill()
        os.kill(other.process.pid, signal.SIGCONT)
        scene.service.start()


@case("R", "the provider is killed too and has forgotten everything", rounds=2)
def provider_forgets(scene: Scene) -> None:
    other = elsewhere(scene)
    scene.start(REPLICATE_BASE_URL=f"{other.server.origin}/v1")
    scene.ask(4)
    scene.pause(0.6)
    scene.kill()
    other.restart()
    scene.let_time_pass()
    scene.service.start()
    scene.ask(2)
    hurry(scene)


@case("R", "slower than every deadline: stopped at the provider, and said", rounds=2)
def slower_than_deadlines(scene: Scene) -> None:
    scene.start()
    scene.provider.spoil({"kind": "stuck"}, NO_WEBHOOKS)
    ids = scene.ask(2)
    for id in ids:
        scene.service.reach(id, "processing")
    scene.kill()
    scene.change("UPDATE generations SET claimed_at = claimed_at - 1000000, deadline_at = 1, due_at = 1")
    scene.service.start()
    for id in ids:
        assert scene.service.ended(id, "failed", 40)["error"]["code"] == "timed_out"
    assert len(scene.provider.ledger["cancels"]) >= 2
    scene.restart()


@dataclass
class Elsewhere(Provider):
    """The emulator as a process of its own; what it knew before it was killed is remembered here."""

    folder: Path = Path()
    process: Any = None
    remembered: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ledger(self) -> dict[str, Any]:
        now: dict[str, Any] = httpx.get(f"{self.server.origin}/emulator/ledger", timeout=30).json()
        for name in ("creates", "ends", "cancels", "webhooks"):
            now[name] = [entry for old in self.remembered for entry in old[name]] + now[name]
        return now

    def start(self) -> None:
        port = self.server.origin.rpartition(":")[2]
        with (self.folder / "provider.log").open("ab") as log:
            self.process = subprocess.Popen([*COMMAND, "emulator", "--port", port], stdout=log, stderr=log)
        until(lambda: _is_up(self.server.origin), 30)

    def restart(self) -> None:
        self.remembered.append(self.ledger)
        self.stop()
        self.start()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


def elsewhere(scene: Scene) -> Elsewhere:
    """Puts a provider of its own process into the scene."""
    origin = f"http://127.0.0.1:{free_port()}"
    server: Any = SimpleNamespace(origin=origin)
    client = httpx.Client(base_url=f"{origin}/v1", headers={"authorization": f"Bearer {TOKEN}"}, timeout=70)
    scene.provider = other = Elsewhere(server, scene.at_the_end.enter_context(client), folder=scene.folder)
    other.start()
    scene.at_the_end.callback(other.stop)
    return other


def _is_up(origin: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{origin}/healthz", timeout=5).status_code == 200
    return False
