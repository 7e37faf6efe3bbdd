"""One JSON shape for every error: application/problem+json (RFC 9457), with a code and the id of the request.

Routes that imitate another API answer errors in its shape: that is their dialect.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pydantic
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from backend.core.errors import (
    Conflict,
    InvalidInput,
    InvalidJson,
    NotAllowed,
    NotFound,
    OutOfSpace,
    Problem,
    StorageFull,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
    WrongStatus,
)
from backend.logs import redact
from backend.web.calls.schemas import ProblemView

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="reelhook"'

_BY_STATUS: Mapping[int, type[Problem]] = {
    kind.status: kind
    for kind in (InvalidJson, Unauthorized, NotFound, NotAllowed, TooLarge, UnsupportedMedia, TooManyRequests)
}


@dataclass(frozen=True)
class Dialect:
    """How the routes below a path answer errors.

    `status` turns our HTTP status into theirs. `tell` returns the JSON of an error, and further headers.
    """

    name: str
    view: type[pydantic.BaseModel]
    media_type: str
    status: Callable[[int], int]
    tell: Callable[[Problem, str | None], tuple[dict[str, Any], dict[str, str]]]


DIALECTS: dict[str, Dialect] = {}  # by the beginning of the path; everything else is told as problem+json


def dialect(path: str) -> Dialect:
    """Return how an error is answered at this path, whether or not there is a route."""
    return next((spoken for start, spoken in DIALECTS.items() if path.startswith(start)), OURS)


def render(problem: Problem, scope: Scope) -> Response:
    """Return the answer for an error, with Retry-After and WWW-Authenticate where they belong."""
    spoken = dialect(scope["path"])
    content, own = spoken.tell(problem, scope.get("state", {}).get("request_id"))
    headers = problem.headers | own
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        headers.setdefault("WWW-Authenticate", CHALLENGE)
    if problem.status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not worth waiting for
    return Response(json.dumps(content), spoken.status(problem.status), headers, media_type=spoken.media_type)


def _tell(problem: Problem, request_id: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": redact(problem.message),
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors is not None:
        content["errors"] = problem.errors
    return content, {}


OURS = Dialect("Problem", ProblemView, MEDIA_TYPE, lambda status: status, _tell)


def unexpected(error: Exception) -> Problem:
    """Return what a client is told of an error that nobody foresaw: that it happened, and nothing else."""
    if isinstance(error, RuntimeError) and "start new thread" in str(error):  # Python has no type of its own for it
        return Unavailable("The system gives the service no more threads now.", retry_after=5)
    return Problem("Something went wrong on our side; the request id finds it in the logs.", code="internal_error")


def from_validation(error: pydantic.ValidationError, *, where: str = "") -> InvalidInput:
    """Return pydantic's complaints as fields and messages. What was sent is never repeated."""
    errors = [
        {"field": _field(where, item["loc"]), "message": item["msg"].removeprefix("Value error, ")[:300]}
        # The first fifty: a body with a thousand wrong fields gets an answer that can still be read.
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:50]
    ]
    return InvalidInput("; ".join(f"{item['field']}: {item['message']}" for item in errors[:3]), errors=errors)


def _field(where: str, location: tuple[int | str, ...]) -> str:
    """Return the path to the field, with dots. An unknown field's own name is part of it: so it is cut and redacted."""
    path = ".".join(str(part) for part in location)
    return redact((path or where or "body")[:400])[:200]


def from_http(error: HTTPException) -> Problem:
    """Return Starlette's own refusals (no such route, wrong method, too large, bad form) as problems of ours."""
    headers = dict(error.headers or {})
    known = _BY_STATUS.get(error.status_code)
    if known is not None:
        # The text is ours for these, but a form parser's complaint says what was wrong with the form.
        message = str(error.detail) if known is InvalidJson else None
        code = "invalid_request" if known is InvalidJson else None
        return known(message, code=code, headers=_sorted_allow(headers))
    problem = Problem(str(error.detail), code="http_error", headers=headers)
    problem.status = error.status_code
    problem.title = _phrase(error.status_code)
    return problem


def _sorted_allow(headers: dict[str, str]) -> dict[str, str]:
    """Sort the methods in the header Allow: Starlette writes them in the order of a set."""
    return {name: ", ".join(sorted(value.split(", "))) if name == "Allow" else value for name, value in headers.items()}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_of(error: Exception) -> Problem | None:
    """Return the problem that a client is told for an exception, or None for one that nobody foresaw."""
    match error:
        case Problem():
            return error
        case HTTPException():
            return from_http(error)
        case pydantic.ValidationError():
            return from_validation(error)
        case WrongStatus():
            return Conflict(error.message, code="wrong_status")
        case StorageFull():
            return OutOfSpace(retry_after=60)
        case ClientDisconnect():
            return InvalidJson("The body ended before it was complete, or is no HTTP.", code="disconnected")
    return None


async def answer(request: Request, error: Exception) -> Response:
    """Answer an exception of a kind that `HANDLERS` lists."""
    return render(problem_of(error) or unexpected(error), request.scope)


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = dict.fromkeys(
    (Problem, HTTPException, pydantic.ValidationError, WrongStatus, StorageFull, ClientDisconnect), answer
)
