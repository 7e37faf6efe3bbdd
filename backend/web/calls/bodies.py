"""Request bodies: read with a cap and a deadline, and as JSON without any of its surprises."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, NoReturn

from starlette.requests import Request

from backend.core.errors import InvalidInput, InvalidJson, RequestTimeout, TooLarge, Unavailable, UnsupportedMedia

CAP_BYTES = 1 << 20
WITHIN_S = 30.0
LARGE_BYTES = 1 << 20
LARGE_WITHIN_S = 10.0  # a body beyond LARGE_BYTES: nobody may hold so much memory for long
STRANGERS_BYTES = 64 << 20  # that all senders nobody knows yet may hold together
FREE_BYTES = 16 << 10  # of each such body, not counted: whoever fills the rest does not keep out the usual webhook
MOST_MEMBERS = 1000  # checking each against a model would hold up everybody
MAX_DEPTH = 32
_THREAD_BYTES = 32 << 10  # a larger body takes more than a few milliseconds to read as JSON
_JSON_TYPE = re.compile(r"application/(?:json|[a-z0-9!#$&^_.-]+\+json)")


class _Strangers:
    """The memory that all senders nobody knows yet have together."""

    def __init__(self) -> None:
        self.held_bytes = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """One sender's share, given back at the end: tell it each size the body grows to. Raises Unavailable."""
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            more = max(size - FREE_BYTES, 0) - held
            if more > 0 and self.held_bytes + more > STRANGERS_BYTES:
                raise Unavailable("Too much is being received at once: try again.", retry_after=5)
            self.held_bytes += more
            held += more

        try:
            yield grow
        finally:
            self.held_bytes -= held


strangers = _Strangers()


@asynccontextmanager
async def of_stranger(request: Request, *, cap_bytes: int) -> AsyncIterator[bytes]:
    """The exact bytes of a body whose sender is still to be checked; hold them no longer than the block.

    Raises as `read`, and Unavailable while others like it fill the memory that is meant for them.
    """
    with strangers.share() as grow:
        yield await read(request, cap_bytes=cap_bytes, grow=grow)


async def read(
    request: Request,
    *,
    cap_bytes: int = CAP_BYTES,
    within_s: float = WITHIN_S,
    grow: Callable[[int], None] | None = None,
) -> bytes:
    """The exact bytes of the body; `grow` is told its size with every piece.

    Raises TooLarge beyond the cap (before reading when the length is announced) and RequestTimeout
    when the body is not complete in time, however busily it drips; a large one has less time.
    """
    if announced(request) > cap_bytes:
        raise TooLarge(f"The body is larger than {cap_bytes} bytes.")
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(within_s) as patience:
            return await _collect(request, cap_bytes, lambda size: _note(size, began, patience, grow))
    except TimeoutError:
        took_s = asyncio.get_running_loop().time() - began
        raise RequestTimeout(f"The body was not complete after {took_s:.0f} seconds.") from None


def _note(size: int, began: float, patience: asyncio.Timeout, grow: Callable[[int], None] | None) -> None:
    if grow is not None:
        grow(size)
    if size > LARGE_BYTES:
        patience.reschedule(min(patience.when() or began, began + LARGE_WITHIN_S))


def announced(request: Request) -> int:
    """The length the sender promises, or 0 when it promises none."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0


async def _collect(request: Request, cap_bytes: int, note: Callable[[int], None]) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            size = len(body) + len(chunk)
            if size > cap_bytes:
                raise TooLarge(f"The body is larger than {cap_bytes} bytes.")
            note(size)
            body += chunk
    return bytes(body)


def require_json_type(request: Request) -> None:
    """Accept application/json and +json types with any parameters, and a body without a type."""
    given = request.headers.get("content-type")
    if given is None:
        return
    if not _JSON_TYPE.fullmatch(given.partition(";")[0].strip().lower()):
        raise UnsupportedMedia("Send JSON with 'Content-Type: application/json'.")


async def check(raw: bytes) -> Any:
    """The JSON value of a body, as `parse` has it and raises; a large one is read in a thread."""
    return await asyncio.to_thread(parse, raw) if len(raw) > _THREAD_BYTES else parse(raw)


def parse(raw: bytes) -> Any:
    """The JSON value of a body that every reader understands the same way.

    InvalidJson: not UTF-8, a BOM, empty, duplicate keys, NaN or infinite numbers, nested too deep.
    InvalidInput: correct JSON with values no database takes (64 bits, NUL, lone surrogates).
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
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 63:
        raise InvalidInput.of("body", "A whole number does not fit into 64 bits.")
    return int(text)


def _check_values(value: Any, *, escapes: bool) -> None:
    """Walk the value level by level: no recursion, so depth costs nothing.

    Only escapes can smuggle in NUL or half a surrogate pair; without any the strings are fine.
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
