"""What can go wrong, as a tree: each class is a decision for the caller.

ReelhookError
├── InvalidArgument       an address, a key or an id that cannot be used
├── Unreachable           no connection: nothing was sent
│   └── Unanswered        the request left and no complete answer came
├── BadAnswer             an answer came, and it is not Reelhook's
├── ApiError              the service refused: status, code, detail, errors, request_id
│   ├── Unauthorized      401
│   ├── BudgetExceeded    402
│   ├── Forbidden         403
│   ├── NotFound          404
│   ├── Conflict          409
│   ├── InvalidRequest    400 and 422, with the fields that are wrong
│   ├── RateLimited       429, with retry_after_s
│   └── Unavailable       500 and above: the service's trouble, with retry_after_s when it said one
├── GenerationFailed      it ended as failed or canceled: generation
├── WaitTimedOut          it has not ended in time; it goes on: generation
└── DownloadFailed        there is no file yet, or it did not arrive as it was stored
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reelhook.models import Generation


class ReelhookError(Exception):
    """Something went wrong between this program and the service. `str()` is a sentence for a person."""


class InvalidArgument(ReelhookError, ValueError):
    """The address, the key or an id cannot be used; the message never holds the key."""


class Unreachable(ReelhookError):
    """No connection to the service could be made: nothing was sent."""


class Unanswered(Unreachable):
    """The request left and no complete answer came. A POST was repeated under its Idempotency-Key meanwhile."""


class BadAnswer(ReelhookError):
    """What answered does not speak as Reelhook does."""


class ApiError(ReelhookError):
    """The service refused the request."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        super().__init__(sentence(problem))
        self.status = status
        self.code = str(problem.get("code") or "http_error")
        self.title = str(problem.get("title") or "")
        self.detail = str(problem.get("detail") or "")
        self.errors = _fields(problem)
        self.request_id = str(problem.get("request_id") or "") or None
        self.retry_after_s = retry_after_s


class Unauthorized(ApiError):
    """The key is missing, wrong, expired or revoked."""


class BudgetExceeded(ApiError):
    """The client's or the campaign's budget does not allow it: nothing was accepted."""


class Forbidden(ApiError):
    """This key may not do that."""


class NotFound(ApiError):
    """It does not exist, or belongs to another client."""


class Conflict(ApiError):
    """Its present state does not allow it."""


class InvalidRequest(ApiError):
    """Something in the request is wrong; `errors` names the fields as {"field", "message"}."""


class RateLimited(ApiError):
    """Too many requests; `retry_after_s` says when to come back."""


class Unavailable(ApiError):
    """The service could not do it now."""


class GenerationFailed(ReelhookError):
    """A generation ended without a result."""

    def __init__(self, generation: Generation) -> None:
        reason = f": {generation.error.message}" if generation.error else ""
        super().__init__(f"{generation.kind} {generation.id} is {generation.status}{reason}")
        self.generation = generation


class WaitTimedOut(ReelhookError, TimeoutError):
    """A generation has not ended in the time given. It goes on, and can be waited for again."""

    def __init__(self, generation_id: str, generation: Generation | None) -> None:
        stage = f": it is {generation.stage}" if generation else ""
        super().__init__(f"{generation_id} has not ended in time{stage}")
        self.generation_id = generation_id
        self.generation = generation


class DownloadFailed(ReelhookError):
    """The file is not there: nothing was left in its place."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    402: BudgetExceeded,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    429: RateLimited,
}


def api_error(status: int, problem: Mapping[str, Any], retry_after_s: float | None = None) -> ApiError:
    """The error of this status."""
    known = _BY_STATUS.get(status, Unavailable if status >= 500 else ApiError)
    return known(status, problem, retry_after_s)


def sentence(problem: Mapping[str, Any]) -> str:
    """A problem+json as one sentence with the fields that are wrong."""
    detail = str(problem.get("detail") or problem.get("title") or "the service refused the request")
    fields = [f"{each['field']}: {each['message']}" for each in _fields(problem)]
    missing = [field for field in fields if field not in detail]
    return f"{detail.rstrip('.')}: {'; '.join(missing)}" if missing else detail


def _fields(problem: Mapping[str, Any]) -> list[dict[str, str]]:
    given = problem.get("errors")
    listed = given if isinstance(given, list) else []
    return [
        {name: str(each.get(name, "")) for name in ("field", "message")} for each in listed if isinstance(each, dict)
    ]
