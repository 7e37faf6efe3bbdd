"""What Replicate's answers mean: predictions, refusals and troubles in our terms. Pure."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

from backend.core.errors import BadAnswer, ProviderError, ProviderRefused, ProviderUnavailable, ProviderUnclear
from backend.core.generation import Failure, Outcome
from backend.http import HttpAnswer
from backend.providers import outputs, reading
from backend.providers.replicate import words

_ID = re.compile(r"[\x21-\x7e]{1,200}")
_STOPPED = ("canceled", "aborted")
_PERCENT = re.compile(r"(\d{1,3})%\|")


def outcome(prediction: Any, now_ms: int, lifetime_ms: int) -> Outcome:
    """A prediction in our terms; everything but its id may be missing. Raises BadAnswer without one.

    `aborted` is a deadline that came before the start: canceled, and not charged.
    """
    id, webhook = reading.member(prediction, "id"), reading.member(prediction, "webhook")
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise BadAnswer("the prediction has no id")
    found = _outcome(id, prediction, now_ms, lifetime_ms)
    webhook = webhook if isinstance(webhook, str) else None
    predict_s = reading.seconds(reading.member(prediction, "metrics", "predict_time"))
    return replace(found, webhook=webhook, predict_s=predict_s, began=_began(prediction, predict_s))


def _outcome(id: str, prediction: dict[str, Any], now_ms: int, lifetime_ms: int) -> Outcome:
    status = prediction.get("status")
    if status == "succeeded":
        return _succeeded(id, prediction, now_ms, lifetime_ms)
    if status == "failed":
        return Outcome(id, "failed", failure=_failure(prediction.get("error")))
    if status in _STOPPED:
        return Outcome(id, "canceled")
    return Outcome(id, "running", progress=_progress(prediction.get("logs")))


def _began(prediction: dict[str, Any], predict_s: float | None) -> bool | None:
    """Whether it ran, by its own word; None when it does not say. `aborted` is a deadline that came before the start.

    A body that tells when it was over, and no start, tells that there was none; a mere fragment tells nothing.
    """
    status = prediction.get("status")
    signs = (prediction.get(name) for name in ("started_at", "logs", "output"))
    if status in ("processing", "succeeded") or predict_s or any(signs):
        return True
    if status not in (*_STOPPED, "failed"):
        return None
    tells_times = "started_at" in prediction or isinstance(prediction.get("completed_at"), str)
    return False if status == "aborted" or predict_s == 0 or tells_times else None


def _succeeded(id: str, prediction: dict[str, Any], now_ms: int, lifetime_ms: int) -> Outcome:
    found = tuple(outputs.find(prediction.get("output")))
    expire_at = min(reading.time_ms(prediction.get("completed_at")) or now_ms, now_ms) + lifetime_ms
    if found:
        return Outcome(id, "succeeded", found, expire_at)
    gone = prediction.get("data_removed") is True
    code, why = ("output_expired", "has deleted its file") if gone else ("output_invalid", "sent no file")
    return Outcome(id, "succeeded", failure=Failure(code, f"The provider finished, but {why}.", retryable=True))


def refusal(answer: HttpAnswer, now_ms: int | None = None) -> ProviderError:
    """What an answer to a create that is not a success means."""
    status, problem = answer.status, _problem(answer)
    detail = reading.sentence(words.sentence(problem))
    if status == 429:
        return ProviderUnavailable("the provider is throttling us", retry_after_s=_wait_s(answer, problem, now_ms))
    if status == 402:
        message = "The account at the provider has no credit left."
        return ProviderRefused(message, code="quota", retryable=True, everybody=True)
    own = words.is_own(problem, status)
    if status == 401 or (status == 403 and own and words.is_of_everybody(problem)):
        message = "The provider does not accept our credentials."
        return ProviderRefused(message, code="provider_unavailable", retryable=True, everybody=True)
    if status in words.REFUSED or (status == 403 and own):
        return _refused(detail or str(status))
    if status == 403 or status in words.NOT_NOW:
        message = f"The request was turned away on its way to the provider: {detail or status}"
        return ProviderRefused(message, code="provider_unavailable", retryable=True)
    if status in words.ELSEWHERE:
        message = "The provider's address leads elsewhere."
        return ProviderRefused(message, code="provider_unavailable", retryable=True, everybody=True)
    return ProviderUnclear(f"the provider answered {status}")


def upload_refusal(answer: HttpAnswer, now_ms: int | None = None) -> ProviderUnavailable | ProviderRefused:
    """What an answer to an upload that is not a success means: a file costs nothing, so nothing about it is unclear."""
    found = refusal(answer, now_ms)
    passing = answer.status in words.NOT_NOW or answer.status in words.ELSEWHERE
    if isinstance(found, ProviderUnavailable) or (isinstance(found, ProviderRefused) and not passing):
        return found
    return ProviderUnavailable(f"the provider's file store answered {answer.status}")


def trouble(answer: HttpAnswer, now_ms: int | None = None) -> ProviderError:
    """What an answer to a look means: only 404 says anything about the prediction."""
    if answer.status in (404, 410):
        return ProviderRefused("The provider does not know this prediction.", code="provider_failed", retryable=True)
    wait_s = _wait_s(answer, _problem(answer), now_ms)
    return ProviderUnavailable(f"the provider answered {answer.status}", retry_after_s=wait_s)


def _refused(why: str) -> ProviderRefused:
    code = "moderated" if words.is_moderated(why) else "invalid_input"
    return ProviderRefused(f"The provider refused the request: {why}", code=code)


def _problem(answer: HttpAnswer) -> Any:
    try:
        return answer.json()
    except BadAnswer:
        return None


def _wait_s(answer: HttpAnswer, problem: Any, now_ms: int | None) -> float | None:
    if answer.status != 429 and answer.status < 500:
        return None
    return words.wait_s(answer.headers, problem, int(time.time() * 1000) if now_ms is None else now_ms)


def _failure(error: object) -> Failure:
    """Replicate's error texts, as far as they are known: what is moderated stays so, PA and E004 pass."""
    text = reading.sentence(words.reason(error))
    if words.is_moderated(text):
        return Failure("moderated", text)
    return Failure("provider_failed", text, retryable=True)


def _progress(logs: object) -> float | None:
    """The last percentage in the logs, from 0 to 1."""
    found = _PERCENT.findall(logs[-2000:]) if isinstance(logs, str) else []
    return min(int(found[-1]), 100) / 100 if found else None
