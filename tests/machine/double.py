"""A provider that speaks Replicate's protocol and does nothing by itself: the test says what becomes of everything."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from emulating import png
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.emulator import WEBHOOK_SECRET
from backend.emulator.kit.ledger import Create, End
from backend.emulator.kit.render.prepared import prepared
from backend.providers.reading import write_time

PATH = "/provider"
ENDS = ("succeeded", "failed", "canceled", "aborted")
ANSWERS = {  # what a create can meet: was it taken, and what comes back
    "taken": (True, 201),
    "taken, held up": (True, 201),
    "taken, 500": (True, 500),
    "taken, junk": (True, 201),
    "not taken, 500": (False, 500),
    "refused": (False, 422),
    "throttled": (False, 429),
}


@dataclass
class Prediction:
    """One prediction; `known` until the provider forgets it, `file` until it is deleted."""

    id: str
    number: int
    model: str
    input: dict[str, Any]
    webhook: str | None
    created_at: int
    status: str = "starting"
    started_at: int | None = None
    completed_at: int | None = None
    known: bool = True
    file: bytes | None = None


@dataclass(frozen=True)
class Message:
    """A webhook as it was written when something happened; it can be sent at any time, any number of times."""

    id: str
    url: str
    body: bytes


@dataclass
class Double:
    """The provider's side: what it was asked for, and what it will do next."""

    origin: str
    now: Callable[[], int]
    predictions: list[Prediction] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    creates: list[Create] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    plan: str = "taken"
    troubles: list[int] = field(default_factory=list)
    held: list[asyncio.Event] = field(default_factory=list)
    holding: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ledger(self) -> dict[str, Any]:
        return {"creates": [asdict(one) for one in self.creates], "ends": [asdict(one) for one in self.ends]}

    def app(self) -> Starlette:
        v1 = f"{PATH}/v1"
        return Starlette(
            routes=[
                Route(f"{v1}/models/{{owner}}/{{name}}/predictions", self.create, methods=["POST"]),
                Route(f"{v1}/predictions", self.show_all),
                Route(f"{v1}/predictions/{{id}}", self.show),
                Route(f"{v1}/predictions/{{id}}/cancel", self.cancel, methods=["POST"]),
                Route(f"{v1}/webhooks/default/secret", self.show_secret),
                Route(f"{v1}/files", self.take_file, methods=["POST"]),
                Route(f"{PATH}/output/{{number}}", self.serve),
            ]
        )

    def progress(self, prediction: Prediction, status: str) -> None:
        """Go on to `status`, unless it has ended; a start and an end are written to whoever asked for it."""
        if prediction.status in ENDS or prediction.status == status:
            return
        if status not in ("aborted", "canceled") and prediction.started_at is None:
            prediction.started_at = self.now()
        if status == "aborted" and prediction.started_at:
            status = "canceled"  # it is only what has not begun that is aborted
        prediction.status = status
        if status in ENDS:
            prediction.completed_at = self.now()
            prediction.file = _output(prediction) if status == "succeeded" else None
            sha256 = hashlib.sha256(prediction.file).hexdigest() if prediction.file else None
            self.ends.append(End(prediction.id, status, sha256, prediction.started_at is not None))
        if prediction.webhook:
            body = json.dumps(self.as_json(prediction)).encode()
            self.messages.append(Message(f"msg_{len(self.messages)}", prediction.webhook, body))

    def release(self) -> None:
        """Answer what is held up."""
        for event in self.held:
            event.set()
        self.held.clear()
        self.holding.clear()

    def as_json(self, prediction: Prediction) -> dict[str, Any]:
        done = prediction.status == "succeeded"
        shown: dict[str, Any] = {
            "id": prediction.id,
            "model": prediction.model,
            "input": prediction.input,
            "status": prediction.status,
            "output": f"{self.origin}{PATH}/output/{prediction.number}" if done else None,
            "error": "it did not work" if prediction.status == "failed" else None,
            "created_at": write_time(prediction.created_at),
            "webhook": prediction.webhook,
        }
        if prediction.started_at:
            shown["started_at"] = write_time(prediction.started_at)
        if prediction.completed_at:
            shown["completed_at"] = write_time(prediction.completed_at)
        return shown

    async def create(self, request: Request) -> Response:
        """Taken or not, and answered as planned: `answered` only when the answer says what was done."""
        plan = self.plan
        taken, status = ANSWERS[plan]
        body = await request.json()
        model = "{owner}/{name}".format(**request.path_params)
        entry = Create(model, body.get("webhook"), {}, write_time(self.now()), answered=status < 500)
        self.creates.append(entry)
        if not taken:
            return JSONResponse({"detail": plan, "retry_after": 2}, status)
        number = len(self.predictions)
        made = Prediction(f"prediction{number}", number, model, body["input"], body.get("webhook"), self.now())
        self.predictions.append(made)
        entry.prediction_id, entry.created = made.id, True
        if plan == "taken, held up":
            event = asyncio.Event()
            self.held.append(event)
            self.holding.set()
            await event.wait()
        return Response('{"id": "', 201) if plan == "taken, junk" else JSONResponse(self.as_json(made), status)

    async def show(self, request: Request) -> Response:
        if self.troubles:
            return Response(status_code=self.troubles.pop(0))
        found = self._find(request)
        return JSONResponse(self.as_json(found)) if found else JSONResponse({"detail": "Not found."}, 404)

    async def cancel(self, request: Request) -> Response:
        if found := self._find(request):
            self.progress(found, "canceled")
        return await self.show(request)

    async def show_all(self, request: Request) -> Response:
        if self.troubles:
            return Response(status_code=self.troubles.pop(0))
        known = [self.as_json(one) for one in reversed(self.predictions) if one.known]
        after, before = (request.query_params[f"created_{side}"] for side in ("after", "before"))
        shown = [one for one in known if _at(after) <= _at(one["created_at"]) < _at(before)]
        return JSONResponse({"next": None, "previous": None, "results": shown})

    async def serve(self, request: Request) -> Response:
        """The output; with trouble only half of what is announced."""
        found = self.predictions[int(request.path_params["number"])]
        if found.file is None:
            return Response(status_code=404)
        if self.troubles:
            self.troubles.pop(0)
            return Response(found.file[: len(found.file) // 2], headers={"content-length": str(len(found.file))})
        return Response(found.file)

    async def show_secret(self, request: Request) -> Response:
        return JSONResponse({"key": WEBHOOK_SECRET})

    async def take_file(self, request: Request) -> Response:
        await request.body()
        return JSONResponse({"urls": {"get": f"{self.origin}{PATH}/v1/files/some"}}, 201)

    def _find(self, request: Request) -> Prediction | None:
        known = (one for one in self.predictions if one.known)
        return next((one for one in known if one.id == request.path_params["id"]), None)


def _at(text: str) -> str:
    """Times as text in one length, so that they compare."""
    return text.replace("Z", "").ljust(26, "0") if "." in text else text.replace("Z", "") + ".000000"


def _output(prediction: Prediction) -> bytes:
    """Other bytes for each prediction, so that swapped results are noticed."""
    if "kling" in prediction.model:
        mark = prediction.id.encode()
        return prepared("video/mp4") + struct.pack(">I", 8 + len(mark)) + b"free" + mark
    return png((16 + prediction.number, 16))
