"""Conditional requests and ranges of bytes, as RFC 9110 has them."""

from __future__ import annotations

import re

from starlette.requests import Request

from backend.core.errors import BadRange

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def is_unchanged(request: Request, tag: str) -> bool:
    """Whether the sender has these bytes already: it names their tag."""
    wanted = request.headers.get("if-none-match")
    tags = {one.strip().removeprefix("W/") for one in wanted.split(",")} if wanted else set()
    return "*" in tags or f'"{tag}"' in tags


def span(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """Return the one range that is asked for, its end excluded, or None for the whole file. Raises BadRange.

    Several ranges, and an If-Range that names other bytes, get the whole file, as RFC 9110 allows.
    """
    asked = request.headers.get("range", "")
    condition = request.headers.get("if-range")
    found = _RANGE.fullmatch(asked.strip().lower().replace(" ", ""))
    if not found or found.groups() == ("", "") or condition not in (None, f'"{tag}"'):
        return None
    first, last = found.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if first and last and int(last) < int(first):
        return None
    if start >= size or (not first and int(last) == 0):
        raise BadRange(headers={"content-range": f"bytes */{size}"})
    return start, end
