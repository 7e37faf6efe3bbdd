"""Find the files in what a model answers: a text, a list or an object of any shape. Pure."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

MOST_FOUND = 256
MOST_LOOKED_AT = 20_000  # values in all: an answer of megabytes must not hold up the event loop
LONGEST = 100_000  # values of one list or object
DEEPEST = 32
_DATA = re.compile(r"data:(?:[\w.+-]{1,99}/[\w.+-]{1,99}|base64)?\s*(?:;[^,;]{0,200}){0,9},", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]{1,30}:/\S+", re.IGNORECASE)


def find(output: Any) -> list[str]:
    """Return every URL and data URI in it, each once. Other texts, such as a seed or a caption, are no files.

    What lies deeper comes later, so that long details hide no file. A URL of any scheme is returned: whoever tries to
    fetch it says that it cannot.
    """
    found: dict[str, None] = {}
    left = deque([(output, 0)])
    for _ in range(MOST_LOOKED_AT):
        if not left or len(found) == MOST_FOUND:
            break
        one, depth = left.popleft()
        if isinstance(one, str):
            text = storable(one).strip()
            if is_file(text):
                found[text] = None
        elif depth < DEEPEST:
            left += [(each, depth + 1) for each in _inside(one)[: MOST_LOOKED_AT - len(left)]]
    return list(found)


def is_file(text: str) -> bool:
    """Return whether the whole text, without blanks around it, is a URL or a data URI."""
    text = text.strip()
    return bool(_DATA.match(text)) or bool(_URL.fullmatch(text))


def storable(text: str) -> str:
    """Return the text without NUL and half surrogate pairs: JSON can spell them, and no database takes them."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _inside(one: Any) -> list[Any]:
    """Return the values inside that may be files or hold some."""
    values = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []
    return [each for each in values[:LONGEST] if isinstance(each, str | list | dict)]
