"""What Replicate's answers mean: predictions, refusals and troubles in our terms. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from backend.core.errors import BadAnswer, ProviderError, ProviderRefused, ProviderUnavailable
from backend.core.generation import Failure
from backend.core.outcomes import Outcome
from backend.http import HttpAnswer
from backend.providers import outputs, reading, refusals
from backend.providers.refusals import Problem
from backend.providers.replicate import words

_STOPPED = ("canceled", "aborted")
_PERCENT = re.compile(r"(\d{1,3})%\|")


def outcome(prediction: Any, now_ms: int, lifetime_ms: int) -> Outcome:
    """Return a prediction in our terms. Raises BadAnswer without an id; everything else may be missing.

    `aborted` is a deadline that came before the start: canceled, and not charged.
    """
    id = reading.id_of(reading.member(prediction, "id"))
    found = _outcome(id, prediction, now_ms, lifetime_ms)
    webhook = reading.text(reading.member(prediction, "webhook"))
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
    # Also for a status that we do not know: a new word of theirs must not end a run that is paid.
    return Outcome(id, "running", progress=_progress(prediction.get("logs")))


def _began(prediction: dict[str, Any], predict_s: float | None) -> bool | None:
    """Return whether it ran, by what it says of itself; None when it does not say.

    `aborted` is a deadline that came before the start, which costs nothing. A body with the time of its end and without
    one of a start says that there was no start. A fragment says nothing.
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
    # Their clock may be ahead of ours: an output must not seem to live longer than it does.
    expire_at = min(reading.time_ms(prediction.get("completed_at")) or now_ms, now_ms) + lifetime_ms
    if found:
        return Outcome(id, "succeeded", found, expire_at)
    gone = prediction.get("data_removed") is True
    code, why = ("output_expired", "has deleted its file") if gone else ("output_invalid", "sent no file")
    return Outcome(id, "succeeded", failure=Failure(code, f"The provider finished, but {why}.", retryable=True))


def refusal(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Return what an answer to a create means that is no success."""
    return refusals.of_create(answer.status, _problem(answer, now_ms))


def upload_refusal(answer: HttpAnswer, now_ms: int) -> ProviderUnavailable | ProviderRefused:
    """Return what an answer to an upload means that is no success."""
    return refusals.of_upload(answer.status, _problem(answer, now_ms))


def trouble(answer: HttpAnswer, now_ms: int) -> ProviderUnavailable | ProviderRefused:
    """Return what an answer to a look means that is no success."""
    return refusals.of_look(answer.status, _problem(answer, now_ms))


def _problem(answer: HttpAnswer, now_ms: int) -> Problem:
    """Return what a problem document says, or whatever body came in its place."""
    try:
        told = answer.json()
    except BadAnswer:
        told = None
    text, is_own = reading.sentence(words.sentence(told)), words.is_own(told, answer.status)
    return Problem(
        text,
        is_own,
        is_of_everybody=is_own and words.is_of_everybody(told),
        code="moderated" if words.is_moderated(text) else "invalid_input",
        wait_s=words.wait_s(answer, told, now_ms) if answer.status == 429 or answer.status >= 500 else None,
    )


def _failure(error: object) -> Failure:
    """Return why it failed, by Replicate's own text. What is moderated fails again; everything else may pass."""
    text = reading.sentence(words.reason(error))
    if words.is_moderated(text):
        return Failure("moderated", text)
    return Failure("provider_failed", text, retryable=True)


def _progress(logs: object) -> float | None:
    """Return the last percentage in the logs, from 0 to 1."""
    found = _PERCENT.findall(logs[-2000:]) if isinstance(logs, str) else []
    return min(int(found[-1]), 100) / 100 if found else None
