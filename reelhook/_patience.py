"""How long and how often a call is repeated. It is safe, since every POST has its Idempotency-Key."""

from __future__ import annotations

import random
import time

from reelhook.errors import ApiError, ReelhookError, Unanswered, Unreachable

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
GATEWAY_TROUBLE = (502, 503, 504)


class Patience:
    """The seconds for which a call may be repeated, counted from its first failure, with longer and longer pauses.

    With `fail_fast` a service that has never answered is not waited for: its address is probably wrong.
    """

    def __init__(self, total_s: float, *, fail_fast: bool = False) -> None:
        self._total_s = total_s
        self._fail_fast = fail_fast
        self._ends_at: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self.lost_an_answer = False

    def pause_s(self, error: ReelhookError) -> float:
        """Return the seconds to wait before the call is sent again. Raises the error when that would not help."""
        now = time.monotonic()
        self._ends_at = self._ends_at or now + self._total_s
        if not is_passing(error) or (self._fail_fast and type(error) is Unreachable):
            raise error
        self.lost_an_answer |= isinstance(error, Unanswered)
        pause_s = self._pause_s * (1 + random.random()) / 2
        if isinstance(error, ApiError) and error.retry_after_s is not None:
            pause_s = max(error.retry_after_s, pause_s)
        if now + pause_s > self._ends_at:
            raise error
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        return pause_s

    def is_done(self, method: str, error: ReelhookError) -> bool:
        """Whether a refusal only says that the call before, whose answer was lost, did its work."""
        return self.lost_an_answer and method == "DELETE" and isinstance(error, ApiError) and error.status == 404


def is_passing(error: ReelhookError) -> bool:
    """Whether the same call may succeed a little later."""
    # A 500 is not repeated: it is an error in the service, which the same call meets again. A 409 with Retry-After says
    # that the same Idempotency-Key is being worked on.
    if isinstance(error, ApiError):
        told = error.status in (409, 429) and error.retry_after_s is not None
        return told or error.status in GATEWAY_TROUBLE
    return isinstance(error, Unreachable)
