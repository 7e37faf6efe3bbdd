"""Every error is a decision that somebody takes. The first line of a class's docstring is its default message.

ReelhookError
├── Problem                 a client is told, as problem+json
│   ├── InvalidJson         400
│   ├── Unauthorized        401
│   ├── BudgetExceeded      402
│   ├── Forbidden           403
│   ├── NotFound            404
│   ├── NotAllowed          405
│   ├── RequestTimeout      408
│   ├── Conflict            409
│   ├── Gone                410
│   ├── TooLarge            413
│   ├── UnsupportedMedia    415
│   ├── BadRange            416
│   ├── InvalidInput        422, with the fields that are wrong
│   ├── TooManyRequests     429, with Retry-After
│   ├── ProviderFailed      502
│   ├── Unavailable         503, with Retry-After
│   ├── OutOfSpace          507, the disk is full
│   └── ClientFull          507, the client keeps all it may
├── NoPlace                 too many do the same at the same time: try again
├── WrongStatus             a row moved meanwhile: somebody else was faster
├── NotAMove                a step wanted a move that no row can make: an error in our code
├── NetworkError            raised by backend.http only
│   ├── NotSent             no byte of the request left: safe to try again
│   ├── Unanswered          it may have arrived: the outcome is unknown
│   │   └── CutShort        a download ended before its end
│   ├── BlockedAddress      the address must not be reached
│   ├── BadAnswer           an answer came, and it is not what was asked for
│   └── AnswerTooLarge      more bytes than allowed
├── ProviderError           raised by backend.providers only
│   ├── ProviderUnavailable nothing was accepted: try again later
│   ├── ProviderRefused     it will never work: fail with the reason
│   └── ProviderUnclear     it may have been accepted: sending again could pay twice
├── InvalidMedia            the bytes are not what they should be
├── MediaUnavailable        no file can be looked at now: try again later
│   └── MediaBusy           others are looked at, for longer than one waits
├── StorageFull             no room: try again later
└── SettingsError           the operator has to change something
"""

from __future__ import annotations


class ReelhookError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])

    @property
    def message(self) -> str:
        """The sentence that people read."""
        return str(self.args[0])


class Problem(ReelhookError):
    """The request cannot be answered."""

    status = 500
    code = "error"
    title = "Error"

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        retry_after: int | None = None,
        errors: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.retry_after = retry_after
        self.errors = errors
        self.headers = headers or {}


class InvalidJson(Problem):
    """The body is not valid JSON."""

    status, code, title = 400, "invalid_json", "Invalid JSON"


class Unauthorized(Problem):
    """A valid API key is needed: send it as 'Authorization: Bearer sk_...' or 'X-API-Key'."""

    status, code, title = 401, "unauthorized", "Unauthorized"


class BudgetExceeded(Problem):
    """The budget does not reach for this: nothing was accepted."""

    status, code, title = 402, "budget_exceeded", "Payment required"


class Forbidden(Problem):
    """This key may not do that."""

    status, code, title = 403, "forbidden", "Forbidden"


class NotFound(Problem):
    """There is nothing here."""

    status, code, title = 404, "not_found", "Not found"


class NotAllowed(Problem):
    """This method is not allowed here."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class RequestTimeout(Problem):
    """The request took too long to arrive."""

    status, code, title = 408, "request_timeout", "Request timeout"


class Conflict(Problem):
    """This cannot be done in the present state."""

    status, code, title = 409, "conflict", "Conflict"


class Gone(Problem):
    """This has expired."""

    status, code, title = 410, "gone", "Gone"


class TooLarge(Problem):
    """The body is too large."""

    status, code, title = 413, "too_large", "Content too large"


class UnsupportedMedia(Problem):
    """This type of content is not accepted here."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class BadRange(Problem):
    """The range lies outside the file."""

    status, code, title = 416, "range_not_satisfiable", "Range not satisfiable"


class InvalidInput(Problem):
    """Some fields are not valid."""

    status, code, title = 422, "invalid_input", "Invalid input"

    @classmethod
    def of(cls, field: str, message: str, *, code: str | None = None) -> InvalidInput:
        """One field is wrong; `field` is its dotted path in the body or the query's name."""
        return cls(f"{field}: {message}", code=code, errors=[{"field": field, "message": message}])


class TooManyRequests(Problem):
    """Too many requests: wait and try again."""

    status, code, title = 429, "rate_limited", "Too many requests"


class ProviderFailed(Problem):
    """The provider did not make this."""

    status, code, title = 502, "provider_failed", "Bad gateway"


class Unavailable(Problem):
    """The service cannot take this now: try again."""

    status, code, title = 503, "unavailable", "Service unavailable"


class OutOfSpace(Problem):
    """There is no room left to store results: nothing was accepted."""

    status, code, title = 507, "out_of_space", "Insufficient storage"


class ClientFull(Problem):
    """This client keeps all it may: delete something first."""

    status, code, title = 507, "client_full", "Insufficient storage"


class NoPlace(ReelhookError):
    """Every place is taken, and none became free in time."""


class WrongStatus(ReelhookError):
    """The generation is not in a state that allows this."""


class NotAMove(ReelhookError):
    """A step wanted a move that no row can make: the program is wrong, and nothing was changed."""


class NetworkError(ReelhookError):
    """The other side could not be talked to."""


class NotSent(NetworkError):
    """No connection could be made: nothing was sent."""


class Unanswered(NetworkError):
    """The request left and no complete answer came: its outcome is unknown."""


class CutShort(Unanswered):
    """The file ended before its end."""


class BlockedAddress(NetworkError):
    """This address must not be reached from here."""


class BadAnswer(NetworkError):
    """The other side answered with something else than was asked for."""

    def __init__(self, message: str | None = None, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AnswerTooLarge(NetworkError):
    """The answer has more bytes than are allowed."""


class ProviderError(ReelhookError):
    """The provider did not do what was asked."""


class ProviderUnavailable(ProviderError):
    """The provider took nothing: try again later."""

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ProviderRefused(ProviderError):
    """The provider refused the request for good.

    `everybody`: it would refuse the next request too, whoever makes it, so it is left alone for a while.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str = "invalid_input",
        retryable: bool = False,
        everybody: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.everybody = everybody


class ProviderUnclear(ProviderError):
    """The provider may have accepted the request: sending it again could pay twice."""


class InvalidMedia(ReelhookError):
    """The file is not an image, video or sound of a known kind, or it is damaged."""


class MediaUnavailable(ReelhookError):
    """No file can be looked at now: try again later."""


class MediaBusy(MediaUnavailable):
    """Other files are being looked at: try again later."""


class StorageFull(ReelhookError):
    """There is no room left in the storage."""


class SettingsError(ReelhookError):
    """A setting is missing or wrong."""
