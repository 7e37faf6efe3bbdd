"""What can be asked of local work: its name, how many files it takes, and what else it must be told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from backend.core.errors import InvalidInput
from backend.media import MOST_FILMS

FILES = {"trim": (1, 1), "stitch": (2, MOST_FILMS), "frame": (1, 1), "poster": (1, 1)}
TOLD = {"trim": {"from_s", "to_s"}, "stitch": set[str](), "frame": {"which"}, "poster": set[str]()}


def check(work: str, inputs: Mapping[str, Any]) -> None:
    """Raise InvalidInput unless this can be done: `files` are names, `from_s` and `to_s` seconds."""
    if work not in FILES:
        raise InvalidInput.of("model", f"is not one of {', '.join(FILES)}")
    least, most = FILES[work]
    if not least <= len(inputs["files"]) <= most:
        raise InvalidInput.of("files", f"{work} takes {least} of them" if least == most else f"{least} to {most}")
    if wrong := {*inputs} - {"files"} ^ TOLD[work]:
        raise InvalidInput.of(min(wrong), f"{work} is told {', '.join(sorted(TOLD[work])) or 'nothing'}")
    if work == "frame" and inputs["which"] not in ("first", "last"):
        raise InvalidInput.of("which", "is first or last")
    if work == "trim":
        _check_cut(inputs["from_s"], inputs["to_s"])


def _check_cut(from_s: Any, to_s: Any) -> None:
    for name, value in (("from_s", from_s), ("to_s", to_s)):
        if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
            raise InvalidInput.of(name, "is a number of seconds")
    if from_s >= to_s:
        raise InvalidInput.of("to_s", "comes after from_s")
