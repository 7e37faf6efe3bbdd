"""What Replicate's answers mean: predictions, refusals and troubles in our terms. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from backend.errors import BadAnswer, ProviderError, ProviderRefused, ProviderUnavailable, ProviderUnclear
from backend.http import Answer
from backend.model import Failure, Outcome
from backend.providers import outputs

_ID = re.compile(r"[\x21-\x7e]{1,200}")
LONGEST_RUN_S = 1_000_000
_PERCENT = re.compile(r"(\d{1,3})%\|")


def outcome(prediction: Any, now_ms: int, lifetime_ms: int) -> Outcome:
    """A prediction in our terms; everything but its id may be missing. Raises BadAnswer without one.

    `aborted` is a deadline that came before the start: canceled, and not charged.
    """
    id, webhook = member(prediction, "id"), member(prediction, "webhook")
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise BadAnswer("the prediction has no id")
    found = _outcome(id, prediction, now_ms, lifetime_ms)
    webhook = webhook if isinstance(webhook, str) else None
    return replace(found, webhook=webhook, predict_s=_seconds(member(prediction, "metrics", "predict_time")))


def _outcome(id: str, prediction: dict[str, Any], now_ms: int, lifetime_ms: int) -> Outcome:
    status = prediction.get("status")
    if status == "succeeded":
        return _succeeded(id, prediction, now_ms, lifetime_ms)
    if status == "failed":
        return Outcome(id, "failed", failure=_failure(prediction.get("error")))
    if status in ("canceled", "aborted"):
        return Outcome(id, "canceled")
    return Outcome(id, "running", progress=_progress(prediction.get("logs")))


def _succeeded(id: str, prediction: dict[str, Any], now_ms: int, lifetime_ms: int) -> Outcome:
    found = tuple(_storable(one) for one in outputs.find(prediction.get("output")))
    expire_at = min(time_ms(prediction.get("completed_at")) or now_ms, now_ms) + lifetime_ms
    if found:
        return Outcome(id, "succeeded", found, expire_at)
    gone = prediction.get("data_removed") is True
    code, why = ("output_expired", "has deleted its file") if gone else ("output_invalid", "sent no file")
    return Outcome(id, "succeeded", failure=Failure(code, f"The provider finished, but {why}.", retryable=True))


def refusal(answer: Answer) -> ProviderError:
    """What an answer to a create that is not a success means."""
    detail = _detail(answer)
    if answer.status == 429:
        return ProviderUnavailable("the provider is throttling us", retry_after_s=_wait_s(answer, detail))
    if answer.status == 402:
        return ProviderRefused("The account at the provider has no credit left.", code="quota", retryable=True)
    if answer.status in (401, 403):
        message = "The provider does not accept our credentials."
        return ProviderRefused(message, code="provider_unavailable", retryable=True)
    if answer.status in (400, 404, 405, 409, 410, 413, 415, 422):
        return ProviderRefused(f"The provider refused the request: {detail or answer.status}")
    if 300 <= answer.status < 400:
        return ProviderRefused("The provider's address leads elsewhere.", code="provider_unavailable", retryable=True)
    return ProviderUnclear(f"the provider answered {answer.status}")


def trouble(answer: Answer) -> ProviderError:
    """What an answer to a look means: only 404 says anything about the prediction."""
    if answer.status in (404, 410):
        return ProviderRefused("The provider does not know this prediction.", code="provider_failed", retryable=True)
    return ProviderUnavailable(f"the provider answered {answer.status}", retry_after_s=_wait_s(answer, _detail(answer)))


def _detail(answer: Answer) -> str:
    try:
        detail = member(answer.json(), "detail")
    except BadAnswer:
        return ""
    return _plain(detail) if isinstance(detail, str) else ""


def _wait_s(answer: Answer, detail: str) -> float | None:
    """How long to wait: the header, else `retry_after` in the body, else the sentence; None if nobody says."""
    if answer.status != 429 and answer.status < 500:
        return None
    header = answer.headers.get("retry-after", "")
    try:
        told = float(header) if re.fullmatch(r"\d{1,6}", header) else member(answer.json(), "retry_after")
    except BadAnswer:
        told = None
    if isinstance(told, int | float) and 0 <= told < 86_400:
        return float(told)
    sentence = re.search(r"~(\d{1,5})s", detail)
    return float(sentence[1]) if sentence else None


def _failure(error: object) -> Failure:
    """Replicate's error texts, as far as they are known: E005 is moderation, PA and E004 pass."""
    text = _plain(error) if isinstance(error, str) else "The provider gave no reason."
    if "E005" in text or "flagged as sensitive" in text:
        return Failure("moderated", text)
    return Failure("provider_failed", text, retryable=True)


def _plain(text: str) -> str:
    """One line of at most 500 characters."""
    return " ".join(_storable(text).split())[:500]


def _storable(text: str) -> str:
    """JSON can spell NUL and half of a surrogate pair, which no database takes."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _progress(logs: object) -> float | None:
    """The last percentage in the logs, from 0 to 1."""
    found = _PERCENT.findall(logs[-2000:]) if isinstance(logs, str) else []
    return min(int(found[-1]), 100) / 100 if found else None


def _seconds(told: object) -> float | None:
    """A time that can be true: what is billed by it must not be nonsense."""
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told <= LONGEST_RUN_S:
        return None
    return float(told)


def time_ms(text: object) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def write_time(at_ms: int) -> str:
    """A time as Replicate reads it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def member(thing: Any, *path: str) -> Any:
    for name in path:
        thing = thing.get(name) if isinstance(thing, dict) else None
    return thing
