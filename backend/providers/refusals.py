"""What an answer that is no success means: one table of statuses for all providers. Pure.

The question behind every line is whether the provider may have accepted the request, and will bill it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.core.errors import ProviderError, ProviderRefused, ProviderUnavailable, ProviderUnclear
from backend.core.webhooks import read_retry_after
from backend.http import HttpAnswer

# Answers to a create after which certainly nothing was accepted. All that is not listed may have been, also what a
# proxy says for itself (5xx, 499, 520) and 303 or 406, which servers send after the work was done.
REFUSED = frozenset({400, 404, 405, 409, 410, 411, 412, 413, 414, 415, 416, 417, 422, 424, 426, 428, 431, 451})
NOT_NOW = frozenset({407, 408, 421, 423, 425})  # the same request may be taken another time
ELSEWHERE = frozenset({300, 301, 302, 305, 307, 308})
UNKNOWN = frozenset({404, 410})  # to a look: the provider does not have it


@dataclass(frozen=True)
class Problem:
    """What a provider says beside the status, as far as we understand it.

    `text` is one plain sentence. `is_own`: the provider itself says it, and no firewall on the way. `is_of_everybody`:
    the next request would be refused as well, since the account or its key is meant. `wait_s`: after how long to try
    again.
    """

    text: str = ""
    is_own: bool = True
    is_of_everybody: bool = False
    code: Literal["invalid_input", "moderated"] = "invalid_input"
    wait_s: float | None = None


def of_create(status: int, problem: Problem) -> ProviderError:
    """Return what such an answer to a create means: throttled, refused for good or for now, or unclear."""
    if status == 429:
        return ProviderUnavailable("the provider is throttling us", retry_after_s=problem.wait_s)
    if status == 402:
        message = "The account at the provider has no credit left."
        return ProviderRefused(message, code="quota", retryable=True, everybody=True)
    if status == 401 or (status == 403 and problem.is_own and problem.is_of_everybody):
        message = "The provider does not accept our credentials."
        return ProviderRefused(message, code="provider_unavailable", retryable=True, everybody=True)
    if status in REFUSED or (status == 403 and problem.is_own):
        return ProviderRefused(f"The provider refused the request: {problem.text or status}", code=problem.code)
    # A 403 of a firewall concerns this request, perhaps for a word in its prompt. It must not pause the whole account.
    if status == 403 or status in NOT_NOW:
        message = f"The request was turned away on its way to the provider: {problem.text or status}"
        return ProviderRefused(message, code="provider_unavailable", retryable=True)
    if status in ELSEWHERE:
        message = "The provider's address leads elsewhere."
        return ProviderRefused(message, code="provider_unavailable", retryable=True, everybody=True)
    return ProviderUnclear(f"the provider answered {status}")


def of_upload(status: int, problem: Problem) -> ProviderUnavailable | ProviderRefused:
    """Return what such an answer to an upload means. It is never unclear: a second upload costs nothing."""
    found = of_create(status, problem)
    passing = status in NOT_NOW or status in ELSEWHERE
    if isinstance(found, ProviderUnavailable) or (isinstance(found, ProviderRefused) and not passing):
        return found
    return ProviderUnavailable(f"the provider's file store answered {status}")


def of_look(status: int, problem: Problem) -> ProviderUnavailable | ProviderRefused:
    """Return what such an answer to a look means. Only "unknown" says something about the prediction itself."""
    if status in UNKNOWN:
        return ProviderRefused("The provider does not know this prediction.", code="provider_failed", retryable=True)
    return ProviderUnavailable(f"the provider answered {status}", retry_after_s=problem.wait_s)


def wait_s(answer: HttpAnswer, now_ms: int) -> float | None:
    """Return how long to wait by the answer's Retry-After, in seconds; None when it says nothing we understand."""
    told = read_retry_after(answer.headers.get("retry-after"), now_ms, answer.headers.get("date"))
    return None if told is None else told / 1000
