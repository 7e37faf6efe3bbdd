"""Errors in the shape and words of the provider: RFC 7807 bodies, `application/problem+json`."""

from __future__ import annotations

from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.core.errors import ReelhookError


class Refusal(ReelhookError):
    """The emulated provider refuses the request."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.body: dict[str, Any] = {"detail": detail, "status": status, **members}
        self.status = status
        self.headers = headers or {}


def unauthenticated() -> Refusal:
    return Refusal(401, "You did not pass a valid authentication token", title="Unauthenticated")


def not_found(what: str) -> Refusal:
    return Refusal(404, f"{what} not found")


def insufficient_credit() -> Refusal:
    return Refusal(
        402,
        "You have insufficient credit to run this model. Add credit, then try again.",
        title="Insufficient credit",
    )


def throttled(retry_after_s: int, *, in_body: bool = True, in_header: bool = False) -> Refusal:
    """The real service puts the wait into the body and the sentence; a header was never seen there."""
    detail = "Request was throttled."
    if not in_body:
        return Refusal(429, detail, headers={"retry-after": str(retry_after_s)} if in_header else None)
    headers = {"retry-after": str(retry_after_s)} if in_header else None
    return Refusal(
        429,
        f"{detail} Your rate limit resets in ~{retry_after_s}s.",
        headers=headers,
        retry_after=retry_after_s,
    )


def server_error(status: int) -> Refusal:
    return Refusal(status, "Service is temporarily unavailable. Please try again later.")


def invalid_input(fields: list[dict[str, str]]) -> Refusal:
    """422; `fields` are `{type, field, description}`, `field` dotted from the body's root."""
    detail = "".join(f"- {field['field']}: {field['description']}\n" for field in fields)
    return Refusal(422, detail, title="Input validation failed", invalid_fields=fields)


def invalid(field: str, kind: str, description: str) -> Refusal:
    return invalid_input([{"type": kind, "field": field, "description": description}])


def invalid_version() -> Refusal:
    return Refusal(
        422,
        "The specified version does not exist (or perhaps you don't have permission to use it?)",
        title="Invalid version or not permitted",
    )


async def render_refusal(request: Request, refusal: Exception) -> Response:
    told = cast(Refusal, refusal)
    return JSONResponse(told.body, told.status, headers=told.headers, media_type="application/problem+json")


async def render_http_exception(request: Request, exception: Exception) -> Response:
    raised = cast(HTTPException, exception)
    told = Refusal(raised.status_code, raised.detail, headers=dict(raised.headers or {}))
    return await render_refusal(request, told)


async def render_broken_body(request: Request, _: Exception) -> Response:
    return await render_refusal(request, Refusal(400, "The body ended before it was complete"))
