"""A file in a multipart form: one part named `file`, streamed to where it may stay, never held in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message

from backend.core.errors import (
    InvalidInput,
    InvalidJson,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    UnsupportedMedia,
)
from backend.core.places import Places
from backend.disk import room
from backend.storage import Spool
from backend.web.calls import bodies

IDLE_S = 30.0  # without a byte; and the time for the first ones
FLOOR_BYTES = 50_000  # a second: what is slower after the first half minute is given up, however large it is
_FORM_BYTES = 64 << 10  # boundaries and part headers around the file


def too_many() -> TooManyRequests:
    """What a client is told that has all of its uploads under way for too long."""
    many = "Too many files are being uploaded for this client."
    return TooManyRequests(many, code="too_many_uploads", retry_after=10)


of_clients = Places(8, 20.0, refusal=too_many)  # uploads at a time


class Spooled:
    """The file of a form, written to a path as it comes; gone when it is closed, unless somebody moved it away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None

    @property
    def sha256(self) -> str:
        """Of what was written, in hex."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """A piece more."""
        self._hash.update(data)
        with room.needed():
            return self._opened().write(data)

    def seek(self, offset: int) -> int:
        """Go to this byte; what was written is in the file."""
        with room.needed():
            return self._opened().seek(offset)

    def read(self, size: int = -1) -> bytes:
        """So many bytes from there on."""
        return self._opened().read(size)

    def close(self) -> None:
        """Done with it."""
        if self._file:
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _opened(self) -> IO[bytes]:
        self._file = self._file or self.path.open("w+b")
        return self._file


class _Sent(UploadFile):
    """Starlette's, in our threads: those it would start are ended when idle, and may not be had again."""

    def __init__(self, spooled: Spooled, made: UploadFile) -> None:
        super().__init__(cast(BinaryIO, spooled), size=0, filename=made.filename, headers=made.headers)

    async def write(self, data: bytes) -> None:
        """A piece more."""
        self.size = (self.size or 0) + len(data)
        await asyncio.to_thread(self.file.write, data)

    async def seek(self, offset: int) -> None:
        """Go to this byte."""
        await asyncio.to_thread(self.file.seek, offset)

    async def read(self, size: int = -1) -> bytes:
        """So many bytes from there on."""
        return await asyncio.to_thread(self.file.read, size)

    async def close(self) -> None:
        """Done with it."""
        await asyncio.to_thread(self.file.close)


def spooled(file: UploadFile) -> Spooled:
    """What a form's file was written to."""
    return cast(Spooled, file.file)


def expected(request: Request, cap_bytes: int) -> tuple[int, int]:
    """How many bytes to keep room for, and how few would do. Raises TooLarge when more are announced than may come."""
    announced = bodies.announced(request)
    if announced > cap_bytes + _FORM_BYTES:
        raise TooLarge(f"The file is larger than {cap_bytes} bytes.")
    return (announced, announced) if announced else (cap_bytes, 1)


@asynccontextmanager
async def open_file(
    request: Request, spool: Spool, *, cap_bytes: int, idle_s: float | None = None
) -> AsyncIterator[UploadFile]:
    """The uploaded file, at its beginning; it is gone when the block ends, unless somebody moved it away.

    Raises as `open_form`, and InvalidInput unless there is exactly one part, named `file`.
    """
    async with open_form(request, spool, cap_bytes=cap_bytes, idle_s=idle_s) as form:
        file = form.get("file")
        if len(form.multi_items()) != 1 or not isinstance(file, UploadFile):
            raise InvalidInput.of("file", "Send exactly one part: a file named 'file'.")
        yield file


@asynccontextmanager
async def open_form(
    request: Request,
    spool: Spool,
    *,
    cap_bytes: int,
    idle_s: float | None = None,
    fields: int = 8,
    text_bytes: int = 64 << 10,
) -> AsyncIterator[FormData]:
    """A form with one file at most, and its texts, which together have `text_bytes` at most: they are in memory.

    The file is in the spool until the block ends. Raises TooLarge, RequestTimeout, StorageFull,
    UnsupportedMedia for texts in another coding than UTF-8, and InvalidJson for a form that cannot be read.
    """
    _require_utf8(request)
    bounded = Request(request.scope, _Bounded(request, cap_bytes + _FORM_BYTES, idle_s or IDLE_S).receive)
    parser = _Parser(bounded, spool, fields, text_bytes)
    try:
        form = await parser.parse()
        if any(isinstance(part, UploadFile) and (part.size or 0) > cap_bytes for part in form.values()):
            raise TooLarge(f"The file is larger than {cap_bytes} bytes.")
        yield form
    except MultiPartException as error:
        raise InvalidJson(error.message, code="invalid_request") from None
    finally:
        await asyncio.shield(asyncio.to_thread(parser.close))


def _require_utf8(request: Request) -> None:
    """Any codec of Python could be named, and some of them fail in ways of their own."""
    named = parse_options_header(request.headers.get("content-type", ""))[1].get(b"charset", b"utf-8")
    if named.lower() not in (b"utf-8", b"utf8"):
        raise UnsupportedMedia("Send the form's texts in UTF-8.")


class _Parser(MultiPartParser):
    """Starlette's, which bounds each text and not all of them, and keeps files in the system's temporary folder."""

    def __init__(self, request: Request, spool: Spool, fields: int, text_bytes: int) -> None:
        super().__init__(request.headers, request.stream(), max_files=1, max_fields=fields, max_part_size=text_bytes)
        self._left = text_bytes
        self._spool = spool
        self._spooled: list[Spooled] = []

    def on_headers_finished(self) -> None:
        """A part begins; a file goes where we want it."""
        super().on_headers_finished()
        if self._current_part.file is not None:
            self._current_part.file.file.close()
            self._spooled.append(Spooled(self._spool.new()))
            self._current_part.file = _Sent(self._spooled[-1], self._current_part.file)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a file or a text."""
        if self._current_part.file is None:
            self._left -= end - start
            if self._left < 0:
                raise MultiPartException(f"The form's texts have more than {self.max_part_size} bytes.")
        super().on_part_data(data, start, end)

    def close(self) -> None:
        """Remove what is still there."""
        for file in self._spooled:
            file.close()


class _Bounded:
    """Passes on what arrives until it is too much, or too slow."""

    def __init__(self, request: Request, cap_bytes: int, idle_s: float) -> None:
        self._request = request
        self._cap_bytes = self._left = cap_bytes
        self._idle_s = idle_s
        self._began = asyncio.get_running_loop().time()
        if bodies.announced(request) > cap_bytes:
            raise TooLarge(f"The file is larger than {cap_bytes - _FORM_BYTES} bytes.")

    async def receive(self) -> Message:
        """The next piece of the body."""
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
