"""The OpenAI face of a real service process, with keys and campaigns, and a proxy that loses answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from auditor import findings
from emulating import Provider
from gateway import Gateway, new_gateway

from backend.cli.processes import answer_of


@dataclass
class OpenAIFace:
    """A running service with an admin's key, and a client's key that has a campaign of its own."""

    service: Gateway
    admin: httpx.Client
    key: str
    campaign_id: str
    deleted: int = 0  # rows that the story removed

    @property
    def base(self) -> str:
        return f"{self.service.origin}/v1"

    def new_key(self, **more: Any) -> str:
        """A key of the same client and campaign."""
        client_id = self.admin.get(f"/campaigns/{self.campaign_id}").json()["client_id"]
        wanted = {"name": "more", "client_id": client_id, "campaign_id": self.campaign_id, **more}
        made = self.admin.post("/keys", json=wanted)
        assert made.status_code == 201, made.text
        return str(made.json()["key"])

    def generations(self, prompt: str) -> list[dict[str, Any]]:
        """What was made of this prompt, start images left out."""
        found = self.admin.get("/generations", params={"q": prompt, "limit": 100}).json()["items"]
        started = {row["source"].get("image_id") for row in found}
        return [row for row in found if row["id"] not in started]


@contextmanager
def openai_face(folder: Path, provider: Provider, **more: str) -> Iterator[OpenAIFace]:
    service = new_gateway(folder, provider, AUTH_MODE="keys", **more)
    try:
        service.start()
        admin = answer_of(["keys", "create", "--name", "admin", "--admin"], folder, service.settings).strip()
        headers = {"Authorization": f"Bearer {admin}"}
        with httpx.Client(base_url=f"{service.origin}/api/v2", headers=headers, timeout=30, trust_env=False) as http:
            client_id = http.post("/clients", json={"name": "studio"}).json()["id"]
            made = http.post("/campaigns", json={"name": "spring", "client_id": client_id})
            campaign_id = str(made.json()["id"])
            command = ["keys", "create", "--name", "sdk", "--campaign", campaign_id]
            key = answer_of(command, folder, service.settings).strip()
            face = OpenAIFace(service, http, key, campaign_id)
            yield face
        assert service.stop() == 0, service.log()[-3000:]
        check(folder, provider, face.deleted)
        assert "request_failed" not in service.log(), service.log()[-5000:]
    finally:
        service.abandon()
        service.close()


def check(folder: Path, provider: Provider, deleted: int) -> None:
    """The auditor's findings, apart from predictions whose rows the story removed."""
    made = sum(create["created"] for create in provider.ledger["creates"])
    expected = f"{made} predictions for {made - deleted} generations"
    wrong = [one for one in findings(folder, provider.ledger) if not deleted or one.text != expected]
    assert not wrong, wrong


@contextmanager
def losing_answers(origin: str, lose: int = 1) -> Iterator[str]:
    """A proxy before `origin` that passes on every request, and cuts the first answers when they come."""
    host, _, port = origin.removeprefix("http://").rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    left = [lose]

    def carry(source: socket.socket, target: socket.socket, *, loses: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if loses and left[0] > 0:
                    left[0] -= 1
                    break
                target.sendall(chunk)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                threading.Thread(target=carry, args=(near, far), kwargs={"loses": False}, daemon=True).start()
                threading.Thread(target=carry, args=(far, near), kwargs={"loses": True}, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert left == [0], "no answer was lost"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
