"""The emulator's routes, put together."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from backend.emulator.kit import control, outputs
from backend.emulator.kit.options import EmulatorOptions
from backend.emulator.kit.pages import PageGuard
from backend.emulator.kit.state import open_emulator
from backend.emulator.replicate import creates, problems, reads, uploads

Endpoint = Callable[[Request], Awaitable[Response]]
MAX_BODY_BYTES = 110 << 20  # an upload may have 100 MB and is refused by its own sentence


def create(options: EmulatorOptions | None = None) -> Starlette:
    """The emulated provider as an application; its predictions live from start-up to shutdown."""
    wanted = options or EmulatorOptions()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.emulator = open_emulator(wanted)
        try:
            yield
        finally:
            await app.state.emulator.close()

    handlers = {
        problems.Refusal: problems.render_refusal,
        HTTPException: problems.render_http_exception,
        ClientDisconnect: problems.render_broken_body,
    }
    return Starlette(
        routes=_routes(),
        middleware=[Middleware(PageGuard)],
        lifespan=lifespan,
        exception_handlers=handlers,
        max_body_size=MAX_BODY_BYTES,
    )


def _routes() -> list[Route]:
    return [
        _v1("POST", "/predictions", creates.create_by_version, allowed=600),
        _v1("GET", "/predictions", reads.list_predictions),
        _v1("GET", "/predictions/{id}", reads.get_prediction),
        _v1("POST", "/predictions/{id}/cancel", reads.cancel_prediction),
        _v1("POST", "/models/{owner}/{name}/predictions", creates.create_for_model, allowed=600),
        _v1("GET", "/models/{owner}/{name}", reads.get_model),
        _v1("GET", "/models", reads.list_models),
        _v1("GET", "/account", reads.get_account),
        _v1("GET", "/webhooks/default/secret", reads.get_secret),
        _v1("POST", "/files", uploads.create_file),
        _v1("GET", "/files", uploads.list_files),
        _v1("GET", "/files/{id}", uploads.get_file),
        _v1("DELETE", "/files/{id}", uploads.delete_file),
        _v1("GET", "/files/{id}/download", uploads.download_file),
        Route("/output/{id}/{name}", outputs.serve_output),
        Route("/p/{id}", reads.show_prediction),
        Route("/emulator/faults", control.get_faults, methods=["GET"]),
        Route("/emulator/faults", control.put_faults, methods=["PUT"]),
        Route("/emulator/faults", control.delete_faults, methods=["DELETE"]),
        Route("/emulator/ledger", control.get_ledger, methods=["GET"]),
        Route("/emulator/ledger", control.delete_ledger, methods=["DELETE"]),
        Route("/emulator/expire/{id}", control.expire, methods=["POST"]),
        Route("/healthz", control.healthz),
    ]


def _v1(method: str, path: str, endpoint: Endpoint, *, allowed: int = 3000) -> Route:
    """A route that needs the token; `allowed` a minute is what its headers claim, nothing is counted."""
    headers = {"ratelimit-remaining": str(allowed - 1), "ratelimit-reset": "1"}

    async def guarded(request: Request) -> Response:
        _check_token(request)
        response = await endpoint(request)
        response.headers.update(headers)
        return response

    return Route(f"/v1{path}", guarded, methods=[method])


def _check_token(request: Request) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    expected = request.app.state.emulator.options.api_token
    if scheme.lower() not in ("bearer", "token") or not hmac.compare_digest(token.encode(), expected.encode()):
        raise problems.unauthenticated()
