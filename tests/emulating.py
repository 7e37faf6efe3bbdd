"""A real emulator on a free port, and a real receiver for its webhooks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from waiting import until

from backend.emulator import EmulatorOptions, Server, create

IMAGE = "google/nano-banana"
VIDEO = "kwaivgi/kling-v2.1"
TOKEN = "r8_emulator"
TINY = EmulatorOptions(image_s=0, video_s=0, render="tiny", webhook_delays_s=(0.05, 0.05, 0.05))


@dataclass
class Provider:
    """The emulator as a client sees it."""

    server: Server
    http: httpx.Client

    def create(self, prompt: str = "a fox", *, model: str = IMAGE, **more: Any) -> httpx.Response:
        body = more.pop("body", {})
        headers = more.pop("headers", {})
        wanted = {"input": {"prompt": prompt, **more}, **body}
        return self.http.post(f"/models/{model}/predictions", json=wanted, headers=headers)

    def made(self, prompt: str = "a fox", **more: Any) -> dict[str, Any]:
        """A prediction that was created and has ended."""
        answer = self.create(prompt, **more)
        assert answer.status_code == 201, answer.text
        return self.ended(answer.json()["id"])

    def get(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/predictions/{id}").json()
        return found

    def ended(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = until(lambda: (now := self.get(id)).get("completed_at") and now)
        return found

    def download(self, url: str, **more: Any) -> httpx.Response:
        return httpx.get(url, timeout=10, **more)

    @property
    def ledger(self) -> dict[str, Any]:
        found: dict[str, Any] = self.control("GET", "ledger").json()
        return found

    def spoil(self, *faults: dict[str, Any]) -> httpx.Response:
        return self.control("PUT", "faults", json={"faults": list(faults)})

    def control(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One of the emulator's own routes; a fault may have closed its port, and then it is tried again."""
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as http:
            return http.request(method, f"{self.server.origin}/emulator/{path}", **more)


def together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The ledgers of two emulators as one."""
    return {name: one[name] | other[name] if isinstance(one[name], dict) else one[name] + other[name] for name in one}


@contextmanager
def running(server: uvicorn.Server) -> Iterator[None]:
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def emulating(options: EmulatorOptions = TINY) -> Iterator[Provider]:
    server = Server(create(options))
    with running(server):
        authorization = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"{server.origin}/v1", headers=authorization, timeout=70) as client:
            yield Provider(server, client)


@dataclass
class Receiver:
    """Takes webhooks; answers with `statuses` in turn, then with 200."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def take(self, request: Request) -> Response:
        self.got.append((dict(request.headers), await request.body()))
        status = self.statuses.pop(0) if self.statuses else 200
        return Response(status_code=status, headers={"location": self.url} if 300 <= status < 400 else {})


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    app = Starlette(routes=[Route("/hook", receiver.take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    with running(server):
        receiver.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/hook"
        yield receiver


def png(size: tuple[int, int] = (320, 180), colour: str = "#3366aa") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def saved(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path
