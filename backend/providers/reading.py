"""Reading what a provider answers, whatever it may be: nothing here raises. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from backend.providers import outputs

LONGEST_RUN_S = 1_000_000
LONGEST_TEXT = 500


def member(value: Any, *names: str) -> Any:
    """What lies under these names, one below the other; None where there is nothing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text(value: object) -> str | None:
    """The value when it is text, else None."""
    return value if isinstance(value, str) else None


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
