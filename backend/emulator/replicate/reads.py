"""What can be asked about predictions and models, and the cancel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.emulator.kit import life
from backend.emulator.kit.reads import answer_about, find, listed
from backend.emulator.kit.refusals import Refusal, not_found
from backend.emulator.kit.runs import Run
from backend.emulator.kit.state import emulator_of, origin
from backend.emulator.replicate import pages
from backend.emulator.replicate.models import MODELS, describe
from backend.emulator.replicate.predictions import show


async def get_prediction(request: Request) -> Response:
    return await answer_about(request, request.path_params["id"], _shown)


async def show_prediction(request: Request) -> Response:
    """`urls.web`: for a person's browser, so without a token."""
    return _shown(find(request, request.path_params["id"]))


async def list_predictions(request: Request) -> Response:
    """Newest first, a hundred a page; `created_after` is inclusive, `created_before` is not."""
    query, runs = request.query_params, await listed(request)
    bounds = _time(query.get("created_after")), _time(query.get("created_before"))
    page = pages.cut(runs, query.get("cursor", ""), *bounds)
    is_empty = query.get("source") == "web"  # ours all come through the API
    results = [] if is_empty else [show(run) for run in page.items]
    links = {"next": _link(request, page.older), "previous": _link(request, page.newer)}
    return JSONResponse({**links, "results": results})


async def cancel_prediction(request: Request) -> Response:
    """A finished prediction is answered as it is."""
    run = find(request, request.path_params["id"])
    life.cancel(emulator_of(request), run)
    return _shown(run)


async def get_secret(request: Request) -> Response:
    return JSONResponse({"key": emulator_of(request).webhook_secret})


async def get_account(request: Request) -> Response:
    return JSONResponse({"type": "organization", "username": "emulator", "name": "Reelhook emulator"})


async def get_model(request: Request) -> Response:
    model = MODELS.get("{owner}/{name}".format(**request.path_params))
    if model is None:
        raise not_found("Model")
    return JSONResponse(describe(model, origin(request)))


async def list_models(request: Request) -> Response:
    shown = [describe(model, origin(request)) for model in MODELS.values()]
    return JSONResponse({"next": None, "previous": None, "results": shown})


def _shown(run: Run) -> Response:
    return JSONResponse(show(run))


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as wrong:
        raise Refusal(422, "other", f"{text!r:.100} is not an ISO 8601 date-time.") from wrong
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _link(request: Request, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    kept: dict[str, Any] = {name: value for name, value in request.query_params.items() if name.startswith("created_")}
    return f"{origin(request)}{request.url.path}?{urlencode(kept | {'cursor': cursor})}"
