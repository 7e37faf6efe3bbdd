"""A toy provider on the emulator's kit: a queue that is asked by id, with no webhook, no list and no cancel.

POST /jobs {"model": "toy/picture", "input": {"prompt": "a fox"}} -> 201 {"job": "...", "state": "queued"}
GET /jobs/{id} -> {"job", "state": queued | running | done | error, "files": [url], "error": {"code", "text"} | null}

The API and the files need `Authorization: Bearer KEY`. Refusals are {"error": {"code", "text"}}.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import httpx
from emulating import TINY, until
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.emulator import EmulatorOptions, Server
from backend.emulator.kit import app
from backend.emulator.kit.bodies import read_object
from backend.emulator.kit.creates import take
from backend.emulator.kit.keys import bearer, keyed
from backend.emulator.kit.ledger import write_down
from backend.emulator.kit.orders import Order, Work
from backend.emulator.kit.provider import Provider
from backend.emulator.kit.reads import answer_about
from backend.emulator.kit.refusals import Refusal, invalid
from backend.emulator.kit.runs import Run

KEY = "toy-key"
PICTURE, FILM = "toy/picture", "toy/film"
KINDS = {PICTURE: "image/png", FILM: "video/mp4"}
STATES = {"starting": "queued", "processing": "running", "succeeded": "done"} | dict.fromkeys(
    ("failed", "canceled", "aborted"), "error"
)


async def create_job(request: Request) -> Response:
    body = await read_object(request)

    async def answer(run: Run) -> Response:
        return JSONResponse({"job": run.id, "state": "queued"}, 201)

    entry = write_down(str(body.get("model"))[:100], body.get("input"))
    return await take(request, entry, lambda: read_order(body), answer)


def read_order(body: dict[str, Any]) -> Order:
    model, given = body.get("model"), body.get("input")
    if not isinstance(model, str) or model not in KINDS:
        raise invalid("model", "unknown_model", f"known are {', '.join(KINDS)}")
    if not isinstance(given, dict) or not isinstance(given.get("prompt"), str):
        raise invalid("input", "invalid_input", "an object with a prompt is needed")
    images = {"image": given["image"]} if isinstance(given.get("image"), str) else {}
    work = Work(KINDS[model], given["prompt"], references=images, start="image", seed=[model, given])
    return Order(model, work, given)


async def get_job(request: Request) -> Response:
    return await answer_about(request, request.path_params["id"], lambda run: JSONResponse(show(run)))


def show(run: Run) -> dict[str, Any]:
    state = STATES.get(run.status, run.status)
    error = {"code": run.status, "text": run.error or "The job has ended."} if state == "error" else None
    return {"job": run.id, "state": state, "files": run.urls or [], "error": error}


def refuse(refusal: Refusal) -> Response:
    status = 400 if refusal.reason == "invalid" else refusal.status
    error = {"code": refusal.reason, "text": refusal.message}
    return JSONResponse({"error": error}, status, headers=refusal.headers)


TOY = Provider(
    name="Toy",
    noun="Job",
    routes=[
        Route("/jobs", keyed(create_job), methods=["POST"]),
        Route("/jobs/{id}", keyed(get_job), methods=["GET"]),
    ],
    show=show,
    refuse=refuse,
    key_of=bearer,
    api_key=KEY,
    outputs_need_key=True,
    lacks=frozenset({"output_list", "output_object"}),  # it always answers a list
)


@dataclass
class Toy:
    """The running emulator; `with start() as toy` stops it at the end."""

    server: Server
    thread: threading.Thread

    @property
    def origin(self) -> str:
        return self.server.origin

    @property
    def ledger(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.origin}/emulator/ledger").json()
        return found

    @property
    def creates(self) -> list[dict[str, Any]]:
        """Every POST: `created` says whether a job was made of it, and would be paid for."""
        found: list[dict[str, Any]] = self.ledger["creates"]
        return found

    def spoil(self, *faults: str | dict[str, Any]) -> httpx.Response:
        """These faults are in force from now on, and no others."""
        wanted = [{"kind": fault} if isinstance(fault, str) else fault for fault in faults]
        return httpx.put(f"{self.origin}/emulator/faults", json={"faults": wanted})

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)

    def __enter__(self) -> Toy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(options: EmulatorOptions = TINY, *, port: int = 0, description: Provider = TOY) -> Toy:
    """The emulator on a free port; its options and faults are those of the kit."""
    server = Server(app.create(description, options), port=port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    return Toy(server, thread)
