"""A file in a multipart form: one part named `file`, streamed to disk, never held in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message

from backend import room
from backend.errors import InvalidInput, InvalidJson, RequestTimeout, TooLarge, UnsupportedMedia
from backend.web import bodies

WITHIN_S = 900.0
_FORM_BYTES = 64 << 10  # boundaries and part headers around the file


@asynccontextmanager
async def open_file(request: Request, *, cap_bytes: int, within_s: float = WITHIN_S) -> AsyncIterator[UploadFile]:
    """The uploaded file, at its beginning; its temporary copy is gone when the block ends.

    Raises as `open_form`, and InvalidInput unless there is exactly one part, named `file`.
    """
    async with open_form(request, cap_bytes=cap_bytes, within_s=within_s) as form:
        file = form.get("file")
        if len(form.multi_items()) != 1 or not isinstance(file, UploadFile):
            raise InvalidInput.of("file", "Send exactly one part: a file named 'file'.")
        yield file


@asynccontextmanager
async def open_form(
    request: Request, *, cap_bytes: int, within_s: float = WITHIN_S, fields: int = 8, text_bytes: int = 64 << 10
) -> AsyncIterator[FormData]:
    """A form with one file at most, and its texts, which together have `text_bytes` at most: they are in memory.

    The file's temporary copy is gone when the block ends. Raises TooLarge, RequestTimeout, StorageFull,
    UnsupportedMedia for texts in another coding than UTF-8, and InvalidJson for a form that cannot be read.
    """
    _require_utf8(request)
    bounded = Request(request.scope, _Bounded(request, cap_bytes + _FORM_BYTES).receive)
    try:
        async with asyncio.timeout(within_s):
            with room.needed():  # what is larger than a megabyte goes to a temporary file
                form = await _Parser(bounded, fields, text_bytes).parse()
    except MultiPartException as error:
        raise InvalidJson(error.message, code="invalid_request") from None
    except TimeoutError:
        raise RequestTimeout(f"The file was not complete after {within_s:g} seconds.") from None
    try:
        if any(isinstance(part, UploadFile) and (part.size or 0) > cap_bytes for part in form.values()):
            raise TooLarge(f"The file is larger than {cap_bytes} bytes.")
        yield form
    finally:
        await form.close()


def _require_utf8(request: Request) -> None:
    """Any codec of Python could be named, and some of them fail in ways of their own."""
    named = parse_options_header(request.headers.get("content-type", ""))[1].get(b"charset", b"utf-8")
    if named.lower() not in (b"utf-8", b"utf8"):
        raise UnsupportedMedia("Send the form's texts in UTF-8.")


class _Parser(MultiPartParser):
    """Starlette's, which bounds each text and not all of them."""

    def __init__(self, request: Request, fields: int, text_bytes: int) -> None:
        super().__init__(request.headers, request.stream(), max_files=1, max_fields=fields, max_part_size=text_bytes)
        self._left = text_bytes

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a file or a text."""
        if self._current_part.file is None:
            self._left -= end - start
            if self._left < 0:
                raise MultiPartException(f"The form's texts have more than {self.max_part_size} bytes.")
        super().on_part_data(data, start, end)


class _Bounded:
    """Passes on what arrives until it is too much."""

    def __init__(self, request: Request, cap_bytes: int) -> None:
        self._request = request
        self._left = cap_bytes
        if bodies.announced(request) > cap_bytes:
            raise TooLarge(f"The file is larger than {cap_bytes - _FORM_BYTES} bytes.")

    async def receive(self) -> Message:
        """The next piece of the body."""
        message = await self._request.receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise TooLarge
        return message
