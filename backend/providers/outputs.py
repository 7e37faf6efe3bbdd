"""Where the files are in what a model answers: a text, a list or an object of any shape. Pure."""

from __future__ import annotations

import re
from typing import Any

MOST_FOUND = 256
MOST_LOOKED_AT = 20_000
DEEPEST = 32
_DATA = re.compile(r"data:(?:[\w.+-]{1,99}/[\w.+-]{1,99})?\s*(?:;[^,;]{0,200}){0,9},", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]{1,30}:/\S+", re.IGNORECASE)


def find(output: Any) -> list[str]:
    """Every URL and data URI in it, in order and each once; other words, such as a seed or a caption, are no files.

    A URL of any scheme is found: that it cannot be fetched is said where it is tried.
    """
    found: dict[str, None] = {}
    left: list[tuple[Any, int]] = [(output, 0)]
    looked_at = 0
    while left and looked_at < MOST_LOOKED_AT and len(found) < MOST_FOUND:
        one, depth = left.pop()
        looked_at += 1
        if isinstance(one, str) and is_file(one):
            found[one.strip()] = None
        elif isinstance(one, dict | list) and depth < DEEPEST:
            inside = list(one.values()) if isinstance(one, dict) else one
            left += [(each, depth + 1) for each in reversed(inside[:MOST_LOOKED_AT])]
    return list(found)


def is_file(text: str) -> bool:
    """Whether the whole text, but for blanks around it, is a URL or a data URI."""
    text = text.strip()
    return bool(_DATA.match(text)) or bool(_URL.fullmatch(text))
