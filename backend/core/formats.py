"""Times and money as JSON has them."""

from __future__ import annotations

from datetime import UTC, datetime


def time(at_ms: int | None) -> str | None:
    """Return a time in milliseconds since 1970 as RFC 3339 in UTC."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dollars(micros: int | None) -> float | None:
    """Return millionths of a dollar as dollars."""
    return None if micros is None else micros / 1_000_000
