"""What can be asked about predictions and models, and the cancel."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.emulator.kit import runs
from backend.emulator.kit.predictions import Prediction
from backend.emulator.kit.state import Emulator
from backend.emulator.replicate import orders, problems
from backend.emulator.replicate.creates import throttled
from backend.emulator.replicate.models import MODELS, describe

CURSORS = ("older-", "newer-")


async def get_prediction(request: Request) -> Response:
    emulator: Emulator = request.app.state.emulator
    emulator.ledger.gets += 1
    prediction = _find(request)
    struck = emulator.faults.strike("get", prediction.model.slug, prediction.prompt)
    if "delay" in struck:
        await asyncio.sleep(struck["delay"]["delay_s"])
    if "get_500" in struck:
        raise problems.server_error(500)
    if "get_404" in struck:
        raise problems.not_found("Prediction")
    if "get_429" in struck:
        raise throttled(struck["get_429"])
    return JSONResponse(prediction.as_json())


async def show_prediction(request: Request) -> Response:
    """`urls.web`: for a person's browser, so without a token."""
    return JSONResponse(_find(request).as_json())


async def list_predictions(request: Request) -> Response:
    """Newest first, a hundred a page; `created_after` is inclusive, `created_before` is not."""
    emulator: Emulator = request.app.state.emulator
    emulator.ledger.lists += 1
    struck = emulator.faults.strike("list")
    if "delay" in struck:
        await asyncio.sleep(struck["delay"]["delay_s"])
    query = request.query_params
    bounds = _time(query.get("created_after")), _time(query.get("created_before"))
    page = emulator.predictions.page(_cursor(query.get("cursor", "")), *bounds)
    is_empty = "list_empty" in struck or query.get("source") == "web"  # ours all come through the API
    shown = [] if is_empty else [item.as_json() for item in page.items]
    return JSONResponse({"next": _link(request, page.older), "previous": _link(request, page.newer), "results": shown})


async def cancel_prediction(request: Request) -> Response:
    """A finished prediction is answered as it is."""
    emulator: Emulator = request.app.state.emulator
    prediction = _find(request)
    emulator.ledger.cancels.append({"prediction_id": prediction.id, "status": prediction.status})
    runs.end(emulator, prediction, "canceled")
    return JSONResponse(prediction.as_json())


async def get_secret(request: Request) -> Response:
    return JSONResponse({"key": request.app.state.emulator.options.webhook_secret})


async def get_account(request: Request) -> Response:
    return JSONResponse({"type": "organization", "username": "emulator", "name": "Reelhook emulator"})


async def get_model(request: Request) -> Response:
    model = MODELS.get("{owner}/{name}".format(**request.path_params))
    if model is None:
        raise problems.not_found("Model")
    return JSONResponse(describe(model, orders.origin(request)))


async def list_models(request: Request) -> Response:
    shown = [describe(model, orders.origin(request)) for model in MODELS.values()]
    return JSONResponse({"next": None, "previous": None, "results": shown})


def _find(request: Request) -> Prediction:
    emulator: Emulator = request.app.state.emulator
    prediction = emulator.predictions.by_id.get(request.path_params["id"])
    if prediction is None:
        raise problems.not_found("Prediction")
    return prediction


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as wrong:
        raise problems.Refusal(422, f"{text!r:.100} is not an ISO 8601 date-time.") from wrong
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _cursor(text: str) -> str:
    if text and not (text.startswith(CURSORS) and text[6:].isdecimal() and len(text) < 20):
        raise problems.Refusal(422, "The cursor is not valid.")
    return text


def _link(request: Request, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    kept: dict[str, Any] = {name: value for name, value in request.query_params.items() if name.startswith("created_")}
    return f"{orders.origin(request)}{request.url.path}?{urlencode(kept | {'cursor': cursor})}"
