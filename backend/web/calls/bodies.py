"""Request bodies, read with a limit of bytes and of time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

from starlette.requests import Request

from backend.core.errors import RequestTimeout, TooLarge, Unavailable, UnsupportedMedia
from backend.web.calls.strict_json import parse

CAP_BYTES = 1 << 20
WITHIN_S = 30.0
LARGE_BYTES = 1 << 20
LARGE_WITHIN_S = 10.0  # a body beyond LARGE_BYTES: nobody may hold so much memory for long
STRANGERS_BYTES = 64 << 20  # that all senders nobody knows yet may hold together
FREE_BYTES = 16 << 10  # of each such body, not counted: whoever fills the rest does not keep out the usual webhook
_THREAD_BYTES = 32 << 10  # a larger body takes more than a few milliseconds to read as JSON
_JSON_TYPE = re.compile(r"application/(?:json|[a-z0-9!#$&^_.-]+\+json)")


class _Strangers:
    """The memory that the bodies of all senders share whom we have not checked yet."""

    def __init__(self) -> None:
        self.held_bytes = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Count the body of one sender until the block ends: call what it yields with each size. Raises Unavailable."""
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
    """Yield the exact bytes of a body whose sender is still to be checked. Keep them no longer than the block.

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
    """Return the exact bytes of the body. `grow` is called with its size at every piece.

    Raises TooLarge beyond `cap_bytes`, before reading if the sender announces it. Raises RequestTimeout when the body
    is not complete in time, even if bytes still come. A large one has less time.
    """
    # Nothing is read then: the sender learns it before it has sent everything.
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
    """Return the length that the sender announces, or 0 when it announces none."""
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
    """Raise UnsupportedMedia unless the type is application/json or +json, or none is given."""
    given = request.headers.get("content-type")
    if given is None:
        return
    if not _JSON_TYPE.fullmatch(given.partition(";")[0].strip().lower()):
        raise UnsupportedMedia("Send JSON with 'Content-Type: application/json'.")


async def check(raw: bytes) -> Any:
    """Return the JSON value of a body. Raises as `parse`. A large body is read in a thread."""
    return await asyncio.to_thread(parse, raw) if len(raw) > _THREAD_BYTES else parse(raw)
