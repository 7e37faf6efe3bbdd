"""Replicate's routes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from backend.emulator.kit.keys import Endpoint, keyed
from backend.emulator.replicate import creates, reads, uploads


def key_of(request: Request) -> str:
    """`Token` is the scheme of older clients."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() in ("bearer", "token") else ""


def _v1(method: str, path: str, endpoint: Endpoint, *, allowed: int = 3000) -> Route:
    """A route that needs the token; `allowed` a minute is what its headers claim, nothing is counted."""
    headers = {"ratelimit-remaining": str(allowed - 1), "ratelimit-reset": "1"}

    async def told(request: Request) -> Response:
        response = await endpoint(request)
        response.headers.update(headers)
        return response

    return Route(f"/v1{path}", keyed(told), methods=[method])


ROUTES = [
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
    Route("/p/{id}", reads.show_prediction),
]
