"""Reading what a provider answers, whatever it may be. Only what has to have an id raises without one. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from backend.core.errors import BadAnswer
from backend.providers import outputs

LONGEST_RUN_S = 1_000_000
LONGEST_TEXT = 500
_ID = re.compile(r"[\x21-\x7e]{1,200}")
_STEPS = (".", "..")  # a path with one of these leads elsewhere, and quoting leaves dots as they are


def member(value: Any, *names: str) -> Any:
    """What lies under these names, one below the other; None where there is nothing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text(value: object) -> str | None:
    """The value when it is text, else None."""
    return value if isinstance(value, str) else None


def id_of(value: object) -> str:
    """The value when it can be an id: 1 to 200 visible characters of ASCII, not `.` nor `..`. Raises BadAnswer."""
    if not isinstance(value, str) or not _ID.fullmatch(value) or value in _STEPS:
        raise BadAnswer("there is no id that can be asked for")
    return value


def in_path(id: str) -> str:
    """An id as one step of a URL's path, which leads nowhere else. Raises BadAnswer for what can be no id."""
    return quote(id_of(id), safe="")


def sentence(value: str) -> str:
    """One line of at most 500 characters, which a database can hold."""
    return " ".join(outputs.storable(value).split())[:LONGEST_TEXT]


def seconds(value: object) -> float | None:
    """A duration that can be true: what is billed by it must not be nonsense."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_RUN_S:
        return None
    return float(value)


def time_ms(value: object) -> int | None:
    """A time in ISO 8601 as milliseconds since 1970; UTC when it names no zone."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def write_time(at_ms: int) -> str:
    """A time in ISO 8601, in UTC with a Z."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
