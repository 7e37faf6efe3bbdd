"""Uploads: forms with a file, with limits on bytes, on time, and on how many a client sends at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.types import Message

from backend.core.errors import (
    InvalidInput,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    UnsupportedMedia,
)
from backend.core.places import Places
from backend.storage import Spool
from backend.web.calls import bodies
from backend.web.calls.multipart import FormReader, Part, Spooled

IDLE_S = 30.0  # without a byte; and the time for the first ones
FLOOR_BYTES = 50_000  # a second: what is slower after the first half minute is given up, however large it is
_FORM_BYTES = 64 << 10  # boundaries and part headers around the file


def too_many() -> TooManyRequests:
    """Return the refusal for a client whose uploads have all been under way for too long."""
    many = "Too many files are being uploaded for this client."
    return TooManyRequests(many, code="too_many_uploads", retry_after=10)


of_clients = Places(8, 20.0, refusal=too_many)  # uploads at a time


def expected(request: Request, cap_bytes: int) -> tuple[int, int]:
    """Return how many bytes to keep room for, and how few would do. Raises TooLarge for too large a promise."""
    announced = bodies.announced(request)
    if announced > cap_bytes + _FORM_BYTES:
        raise TooLarge(f"The file is larger than {cap_bytes} bytes.")
    return (announced, announced) if announced else (cap_bytes, 1)


@asynccontextmanager
async def open_file(
    request: Request, spool: Spool, *, cap_bytes: int, idle_s: float | None = None
) -> AsyncIterator[Spooled]:
    """Yield the uploaded file. It is removed when the block ends, unless somebody moved it away.

    Raises as `open_form`, and InvalidInput unless there is exactly one part, named `file`.
    """
    async with open_form(request, spool, cap_bytes=cap_bytes, idle_s=idle_s) as parts:
        match parts:
            case [("file", Spooled() as file)]:
                yield file
            case _:
                raise InvalidInput.of("file", "Send exactly one part: a file named 'file'.")


@asynccontextmanager
async def open_form(
    request: Request,
    spool: Spool,
    *,
    cap_bytes: int,
    idle_s: float | None = None,
    fields: int = 8,
    text_bytes: int = 64 << 10,
) -> AsyncIterator[list[Part]]:
    """Yield the parts of a form with one file at most.

    Its texts have `text_bytes` at most together: they are in memory. The file stays in the spool until the block ends.
    Raises TooLarge, RequestTimeout, StorageFull, UnsupportedMedia for texts in another coding than UTF-8, and
    InvalidJson for a form that cannot be read.
    """
    content_type = request.headers.get("content-type", "")
    _require_utf8(content_type)
    # The form may have a little more bytes than the file: for its boundaries and headers.
    bounded = Request(request.scope, _Bounded(request, cap_bytes + _FORM_BYTES, idle_s or IDLE_S).receive)
    reader = FormReader(spool, fields=fields, text_bytes=text_bytes)
    try:
        parts = await reader.read(content_type, bounded.stream())
        if any(isinstance(part, Spooled) and part.size > cap_bytes for _, part in parts):
            raise TooLarge(f"The file is larger than {cap_bytes} bytes.")
        yield parts
    finally:
        # Also when the sender has left and this task is cancelled: a file without an owner stays for an hour.
        await asyncio.shield(asyncio.to_thread(reader.close))


def _require_utf8(content_type: str) -> None:
    """Raise UnsupportedMedia for another coding: a sender could name any codec of Python, and some fail in odd ways."""
    named = parse_options_header(content_type)[1].get(b"charset", b"utf-8")
    if named.lower() not in (b"utf-8", b"utf8"):
        raise UnsupportedMedia("Send the form's texts in UTF-8.")


class _Bounded:
    """Hands on what arrives until it is too much, or comes too slowly."""

    def __init__(self, request: Request, cap_bytes: int, idle_s: float) -> None:
        self._request = request
        self._cap_bytes = self._left = cap_bytes
        self._idle_s = idle_s
        self._began = asyncio.get_running_loop().time()
        if bodies.announced(request) > cap_bytes:
            raise TooLarge(f"The file is larger than {cap_bytes - _FORM_BYTES} bytes.")

    async def receive(self) -> Message:
        """Return the next piece of the body. Raises TooLarge, RequestTimeout."""
        now = asyncio.get_running_loop().time()
        ends_at = self._began + self._idle_s + (self._cap_bytes - self._left) / FLOOR_BYTES
        try:
            async with asyncio.timeout_at(min(now + self._idle_s, ends_at)):
                message = await self._request.receive()
        except TimeoutError:
            took_s = asyncio.get_running_loop().time() - self._began
            raise RequestTimeout(f"The file came too slowly: it was not complete after {took_s:.0f} seconds.") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise TooLarge
        return message
