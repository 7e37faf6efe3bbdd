"""Errors in the shape that OpenAI's clients know: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

import pydantic

from backend.core.errors import Problem
from backend.logs import redact
from backend.web.calls import problems

PREFIX = "/v1/"
_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES = {"unauthorized": "invalid_api_key", "moderated": "moderation_blocked"}
# What the SDK would send again by itself though nothing changes by waiting; its other 409 and 5xx may pass.
_LASTING = frozenset({"no_bytes", "unfinished", "in_use", "canceled", "client_full"})


class ErrorDetail(pydantic.BaseModel):
    """Why a request was not answered; `param` is the field that is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(pydantic.BaseModel):
    """An error as OpenAI's clients know it; its request id is in X-Request-Id."""

    error: ErrorDetail


def status_of(status: int) -> int:
    """Return the status that OpenAI uses: 400 for every wrong input."""
    return 400 if status == 422 else status


def tell(problem: Problem, _request_id: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the error, and a header if the SDK must not send the request again."""
    status = status_of(problem.status)
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    error = {
        "message": redact(problem.message),
        "type": kind,
        "param": problem.errors[0]["field"] if problem.errors else None,
        "code": _CODES.get(problem.code, problem.code),
    }
    lasts = problem.code in _LASTING or status == 502
    return {"error": error}, {"x-should-retry": "false"} if lasts else {}


problems.DIALECTS[PREFIX] = problems.Dialect("OpenAIError", OpenAIError, "application/json", status_of, tell)
