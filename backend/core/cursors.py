"""Cursors of lists: where the next page begins. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol, TypeVar

from backend.core.errors import InvalidInput
from backend.core.ids import is_id


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)


def read(cursor: str | None) -> str | None:
    """Return the id in a cursor. Raises InvalidInput for a cursor that we did not make."""
    if cursor is None:
        return None
    try:
        id = base64.urlsafe_b64decode(cursor.encode() + b"==").decode()
    except (binascii.Error, UnicodeError, ValueError):
        id = ""
    if not is_id(id):
        raise InvalidInput.of("cursor", "is not one that was given out")
    return id


def write(id: str | None) -> str | None:
    """Return the cursor for an id. It is opaque, so that no client builds on what is in it."""
    return base64.urlsafe_b64encode(id.encode()).decode().rstrip("=") if id else None


def page(rows: Sequence[T], limit: int) -> tuple[list[T], str | None]:
    """Return at most `limit` rows, and the cursor of the next page when there are more.

    The query asks for one row more than the page shows: that tells without a COUNT whether another page follows.
    """
    return list(rows[:limit]), write(rows[limit - 1].id) if len(rows) > limit else None
