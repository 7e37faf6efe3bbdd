"""What a child says is a stranger's word too: it is read as strictly as a request."""

from __future__ import annotations

import math
from typing import Any, cast

from backend.core.errors import InvalidMedia, StorageFull
from backend.media.kinds import SUFFIXES, Kind, Probe

MESSAGE_LETTERS = 300
MAX_SIDE = 65_535
MAX_S = 1e7
MAX_FRAMES = 100_000_000


def read(answer: dict[str, Any]) -> Probe:
    """The file as the child found it. Raises InvalidMedia, StorageFull."""
    if answer.get("full") is True:
        raise StorageFull
    if "found" not in answer:
        raise InvalidMedia(_sentence(answer.get("invalid")))
    found = answer["found"]
    if not isinstance(found, dict):
        raise InvalidMedia
    content_type = found.get("content_type")
    if not isinstance(content_type, str) or content_type not in SUFFIXES:
        raise InvalidMedia
    kind = content_type.partition("/")[0]
    if found.get("kind") != kind:
        raise InvalidMedia
    width, height = _whole(found.get("width"), MAX_SIDE), _whole(found.get("height"), MAX_SIDE)
    frames = _whole(found.get("frames"), MAX_FRAMES)
    return Probe(cast(Kind, kind), content_type, width, height, _seconds(found.get("duration_s")), frames)


def _sentence(text: Any) -> str | None:
    if not isinstance(text, str):
        return None
    return "".join(letter for letter in text if letter.isprintable())[:MESSAGE_LETTERS] or None


def _whole(value: Any, most: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= most:
        raise InvalidMedia
    return value


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= MAX_S:
        raise InvalidMedia("The file does not say how long it is.")
    return float(value)
