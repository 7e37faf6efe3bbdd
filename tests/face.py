"""The service as its clients see it: a small synchronous client for the stories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from emulating import until

FINAL = ("completed", "failed", "canceled")


@dataclass
class Face:
    """A client with a campaign, on a service that asks for no key."""

    origin: str
    campaign_id: str = ""

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.origin, timeout=30, trust_env=False)

    def close(self) -> None:
        self.http.close()

    def begin(self, name: str = "stories") -> None:
        """A campaign for everything that is asked for."""
        self.campaign_id = self.campaign(name)

    def campaign(self, name: str, client_id: str | None = None) -> str:
        whose = {"client_id": client_id} if client_id else {}
        return str(self._made(self.http.post("/api/v2/campaigns", json={"name": name, **whose}), 201)["id"])

    def client(self, name: str) -> str:
        return str(self._made(self.http.post("/api/v2/clients", json={"name": name}), 201)["id"])

    def ask(self, kind: str = "image", **wanted: Any) -> Any:
        """What was accepted: a generation, or the items of several copies."""
        if not wanted.keys() & {"prompt", "asset_id", "image_id", "video_id"}:
            wanted["prompt"] = "a fox"
        answer = self.try_to_ask(kind, **wanted)
        accepted = self._made(answer, 202)
        return accepted.get("items", accepted)

    def try_to_ask(self, kind: str = "image", **wanted: Any) -> httpx.Response:
        return self.http.post(f"/api/v2/generate/{kind}", json={"campaign_id": self.campaign_id, **wanted})

    def ask_many(self, count: int, **wanted: Any) -> list[str]:
        prompt = wanted.pop("prompt", "fox")
        return [self.ask(prompt=f"{prompt} {number}", **wanted)["id"] for number in range(count)]

    def get(self, id: str) -> dict[str, Any]:
        return self._made(self.http.get(f"/api/v2/generations/{id}"), 200)

    def stage(self, id: str) -> str:
        return str(self.get(id)["stage"])

    def cancel(self, id: str) -> httpx.Response:
        return self.http.post(f"/api/v2/generations/{id}/cancel", json={})

    def retry(self, id: str) -> dict[str, Any]:
        return self._made(self.http.post(f"/api/v2/generations/{id}/retry", json={}), 202)

    def upload(self, content: bytes, name: str = "start.png", **fields: str) -> str:
        files = {"file": (name, content)}
        return str(self._made(self.http.post("/api/v2/assets", files=files, params=fields), 201)["id"])

    def ended(self, id: str, status: str | None = None, within_s: float = 20.0) -> dict[str, Any]:
        """The generation when it has ended; as `status` when that is given."""

        def final() -> dict[str, Any] | None:
            now = self.get(id)
            return now if now["status"] in FINAL else None

        try:
            found: dict[str, Any] = until(final, within_s)
        except AssertionError:
            raise AssertionError(f"it never ended: {self.get(id)}") from None
        assert status is None or found["status"] == status, found
        return found

    def reach(self, id: str, *stages: str, within_s: float = 20.0) -> None:
        """Wait until the generation is in one of these stages."""
        try:
            until(lambda: self.stage(id) in stages, within_s)
        except AssertionError:
            raise AssertionError(f"it is {self.stage(id)}, not {stages}") from None

    @staticmethod
    def _made(answer: httpx.Response, status: int) -> dict[str, Any]:
        assert answer.status_code == status, answer.text
        made: dict[str, Any] = answer.json()
        return made
