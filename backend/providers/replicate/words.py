"""What Replicate's sentences mean, as far as they are known: it has no codes for most of this. Pure."""

from __future__ import annotations

import re
from typing import Any

from backend.http import HttpAnswer
from backend.providers import refusals

LONGEST_WAIT_S = 86_400

_MEMBERS = frozenset({"title", "detail", "status", "type", "invalid_fields", "errors", "retry_after"})

_MODERATED = re.compile(
    r"""
    \bE005\b | flagged\sas\s(?:sensitive|unsafe|inappropriate) | \bNSFW\b | \bsafety\b | \bmoderat(?:ed|ion)\b
    | content\s(?:policy|policies|filter) | (?:usage|use)\spolic(?:y|ies) | policy\sviolation | community\sguidelines
    | violat\w*\s(?:\w+\s){0,4}(?:polic(?:y|ies)|guidelines|terms|standards)
    | (?:sensitive|inappropriate|prohibited|explicit|harmful|unsafe|disallowed|forbidden)
      \s(?:content|words?|material|image)
    | nudity | sexually\sexplicit | responsible\sAI | risk\scontrol
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MODERATED_CODE = re.compile(
    r"\b(?:[A-Z]+_)*(?:SAFETY|PROHIBITED_CONTENT|BLOCKLIST|SPII|RECITATION|NSFW)(?:_[A-Z]+)*\b"
)
_OF_THE_ACCOUNT = re.compile(
    r"\b(?:token|credentials?|authenticat\w*|unauthenticated|api.?keys?|billing|payment|suspended)\b", re.IGNORECASE
)
_OF_THE_REQUEST = re.compile(
    r"\b(?:models?|versions?|deployments?|inputs?|prompts?|images?|videos?|files?|content|urls?|this\sprediction)\b",
    re.IGNORECASE,
)


def is_moderated(text: str) -> bool:
    """Return whether a sentence says that the request or its result is not allowed.

    The name of a setting in it, such as `safety_tolerance`, says nothing.
    """
    return bool(_MODERATED.search(text) or _MODERATED_CODE.search(text))


def is_own(problem: Any, status: int) -> bool:
    """Return whether this is Replicate's own problem document of that status: firewalls answer in JSON too."""
    return (
        isinstance(problem, dict)
        and isinstance(problem.get("detail"), str)
        and problem.get("status", status) == status
        and not problem.keys() - _MEMBERS
    )


def is_of_everybody(problem: dict[str, Any]) -> bool:
    """Return whether a 403 of Replicate's own is about the account: then the next request is refused as well.

    A model that this account may not run, or an input that is not allowed, concerns this request alone.
    """
    text = f"{problem.get('title', '')} {problem['detail']}"
    return bool(_OF_THE_ACCOUNT.search(text)) or not (_OF_THE_REQUEST.search(text) or is_moderated(text))


def sentence(problem: Any) -> str:
    """Return what a problem document says, or nothing: `detail`, also as a list of messages, else `title`."""
    if not isinstance(problem, dict):
        return ""
    detail = problem.get("detail")
    if isinstance(detail, list):
        detail = "; ".join(str(each["msg"]) for each in detail if isinstance(each, dict) and "msg" in each)
    if isinstance(detail, str) and detail.strip():
        return detail
    title = problem.get("title")
    return title if isinstance(title, str) else ""


def reason(error: object) -> str:
    """Return the text of a prediction's `error`: a string by the specification, anything in practice."""
    if isinstance(error, dict):
        error = next((error[name] for name in ("detail", "message", "error", "title") if error.get(name)), None)
    if isinstance(error, list):
        error = "; ".join(each for each in error if isinstance(each, str))
    return error if isinstance(error, str) and error.strip() else "The provider gave no reason."


def wait_s(answer: HttpAnswer, problem: Any, now_ms: int) -> float | None:
    """Return how many seconds to wait: by the header, else `retry_after` in the body, else the sentence.

    No answer with the header was ever seen; those of the other two kinds were. None if nothing says it.
    """
    header = refusals.wait_s(answer, now_ms)
    if header is not None:
        return header
    told = problem.get("retry_after") if isinstance(problem, dict) else None
    if isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told < LONGEST_WAIT_S:
        return float(told)
    said = re.search(r"~(\d{1,5})s", sentence(problem))
    return float(said[1]) if said else None
