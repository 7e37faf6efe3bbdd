"""An emulator as an application: the provider's routes, its outputs, and what tests and developers ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from backend.emulator.kit import control, outputs
from backend.emulator.kit.browsers import PageGuard
from backend.emulator.kit.keys import keyed
from backend.emulator.kit.options import EmulatorOptions
from backend.emulator.kit.provider import Provider
from backend.emulator.kit.refusals import Refusal
from backend.emulator.kit.state import emulator_of, open_emulator

MAX_BODY_BYTES = 110 << 20  # an upload may have 100 MB and is refused by the provider's own sentence


def create(provider: Provider, options: EmulatorOptions | None = None) -> Starlette:
    """The emulated provider; its runs live from start-up to shutdown."""
    wanted = options or EmulatorOptions()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.emulator = open_emulator(provider, wanted)
        try:
            yield
        finally:
            await app.state.emulator.close()

    return Starlette(
        routes=[*provider.routes, *_routes(provider)],
        middleware=[Middleware(PageGuard)],
        lifespan=lifespan,
        exception_handlers={Refusal: _refuse, HTTPException: _refuse_http, ClientDisconnect: _refuse_broken},
        max_body_size=MAX_BODY_BYTES,
    )


def _routes(provider: Provider) -> list[Route]:
    serve = keyed(outputs.serve_output) if provider.outputs_need_key else outputs.serve_output
    return [
        Route("/output/{id}/{name}", serve),
        Route("/emulator/faults", control.get_faults, methods=["GET"]),
        Route("/emulator/faults", control.put_faults, methods=["PUT"]),
        Route("/emulator/faults", control.delete_faults, methods=["DELETE"]),
        Route("/emulator/ledger", control.get_ledger, methods=["GET"]),
        Route("/emulator/ledger", control.delete_ledger, methods=["DELETE"]),
        Route("/emulator/expire/{id}", control.expire, methods=["POST"]),
        Route("/healthz", control.healthz),
    ]


async def _refuse(request: Request, refusal: Exception) -> Response:
    return emulator_of(request).provider.refuse(cast(Refusal, refusal))


async def _refuse_http(request: Request, exception: Exception) -> Response:
    raised = cast(HTTPException, exception)
    return await _refuse(request, Refusal(raised.status_code, "other", raised.detail, dict(raised.headers or {})))


async def _refuse_broken(request: Request, _: Exception) -> Response:
    return await _refuse(request, Refusal(400, "broken_body", "The body ended before it was complete"))
