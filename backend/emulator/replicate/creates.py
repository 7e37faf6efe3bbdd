"""POST predictions: a model's name is in the path, or its version in the body."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.emulator.kit.bodies import read_object
from backend.emulator.kit.creates import take
from backend.emulator.kit.ledger import write_down
from backend.emulator.kit.progress import lasts
from backend.emulator.kit.runs import Run
from backend.emulator.replicate import orders
from backend.emulator.replicate.models import find_version
from backend.emulator.replicate.predictions import show


async def create_by_version(request: Request) -> Response:
    return await _create(request, None)


async def create_for_model(request: Request) -> Response:
    return await _create(request, "{owner}/{name}".format(**request.path_params))


async def _create(request: Request, slug: str | None) -> Response:
    body = await read_object(request)
    entry = write_down(slug or _named(body.get("version")), body.get("input"), body.get("webhook"))

    async def answer(run: Run) -> Response:
        return await _answer(run, orders.wait_s(request))

    return await take(request, entry, lambda: orders.check(body, slug, request), answer)


def _named(version: object) -> str:
    model = find_version(version) if isinstance(version, str) else None
    return model.slug if model else str(version)[:100]


async def _answer(run: Run, wait_s: int | None) -> Response:
    """At once, or for a client that prefers to wait at the run's end: 202 when that did not come in time."""
    status, headers = 201, {}
    if wait_s is not None:
        status = 201 if await lasts(run, wait_s) else 202
        headers["preference-applied"] = f"wait={wait_s}"
    shown = show(run)
    return JSONResponse(shown, status, headers={"location": shown["urls"]["get"], **headers})
