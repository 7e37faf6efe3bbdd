"""JSON that every reader understands in the same way."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from backend.core.errors import InvalidInput, InvalidJson

MOST_MEMBERS = 1000  # checking each against a model would hold up everybody
MAX_DEPTH = 32


def parse(raw: bytes) -> Any:
    """Return the JSON value of a body, if every reader understands it in the same way.

    Raises InvalidJson for text that is not UTF-8, begins with a BOM, is empty, has a key twice, NaN or infinite
    numbers, or is nested too deep. Raises InvalidInput for values that no database takes: more than 64 bits, NUL, half
    of a surrogate pair.
    """
    text = _decode(raw)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_int64,
        )
    except RecursionError:
        raise InvalidJson(f"The JSON is nested deeper than {MAX_DEPTH} levels.") from None
    except ValueError as error:
        raise InvalidJson(_where(error)) from None
    _check_values(value, escapes="\\u" in text)
    return value


def _decode(raw: bytes) -> str:
    if not raw.strip(b" \t\r\n"):
        raise InvalidJson("The body is empty: JSON is needed.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidJson("The body is not valid UTF-8.") from None
    if text.startswith("\ufeff"):
        raise InvalidJson("The body begins with a byte order mark: send plain UTF-8.")
    return text


def _where(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"The body is not valid JSON (line {error.lineno}, column {error.colno})."
    return "The body is not valid JSON."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_MEMBERS:
        raise InvalidInput.of("body", f"An object has more than {MOST_MEMBERS} members.")
    # Of two equal keys one reader takes the first and another the last: so a check can be passed by.
    values = dict(pairs)
    if len(values) != len(pairs):
        raise InvalidJson("An object has the same key twice.")
    return values


def _refuse_constant(_text: str) -> NoReturn:
    raise InvalidJson("NaN and Infinity are not JSON.")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJson("A number is too large.")
    return value


def _int64(text: str) -> int:
    # The length first: Python takes quadratic time for the digits of a long number.
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 63:
        raise InvalidInput.of("body", "A whole number does not fit into 64 bits.")
    return int(text)


def _check_values(value: Any, *, escapes: bool) -> None:
    """Check the values level by level. Without recursion, depth costs nothing.

    NUL and half a surrogate pair can only come as escapes. So a text without any needs no look at its strings.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if escapes:
            _check_strings([item for item in level if isinstance(item, str)])
            _check_strings([key for item in level if isinstance(item, dict) for key in item])
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return
        level = [child for item in level for child in _children(item)]
    raise InvalidJson(f"The JSON is nested deeper than {MAX_DEPTH} levels.")


def _children(item: dict[str, Any] | list[Any]) -> Any:
    return item.values() if isinstance(item, dict) else item


def _check_strings(strings: list[str]) -> None:
    # Joined by a space, so that two halves of a pair in neighbouring strings do not become whole.
    text = " ".join(strings)
    if "\0" in text:
        raise InvalidInput.of("body", "A text contains the character NUL.")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput.of("body", "A text contains half of a surrogate pair.") from None
