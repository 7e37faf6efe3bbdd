"""A multipart form, read as it comes: its texts into memory, and its one file to where it may stay."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from backend.core.errors import InvalidJson
from backend.disk import room
from backend.storage import Spool

MOST_FILES = 1


class Spooled:
    """The file of a form, written to `path` as it comes; gone when it is closed, unless somebody moved it away."""

    def __init__(self, path: Path, filename: str) -> None:
        self.path = path
        self.filename = filename  # as the sender calls it
        self.size = 0
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written, in hex."""
        return self._hash.hexdigest()

    def write(self, content: bytes) -> None:
        """Add these bytes, which other processes see at once. Raises StorageFull."""
        with room.needed():
            self._file = self._file or self.path.open("wb")
            self._file.write(content)
            self._file.flush()
        self.size += len(content)
        self._hash.update(content)

    def close(self) -> None:
        """Close the file, and remove it if it is still there."""
        if self._file:
            self._file.close()
        self.path.unlink(missing_ok=True)


Part = tuple[str, str | Spooled]  # its name, and its text or its file


class FormReader:
    """Reads one form with one file at most; its texts have `text_bytes` at most together, for they are in memory.

    Starlette's own parser keeps files in the system's temporary folder, writes them in threads that may not be had,
    and bounds each text but not all of them.
    """

    def __init__(self, spool: Spool, *, fields: int, text_bytes: int) -> None:
        self._spool = spool
        self._most_fields = fields
        self._text_bytes = self._left = text_bytes
        self._parts: list[tuple[str, bytearray | Spooled]] = []
        self._ended = 0  # how many of them are whole: a form that breaks off has one that is not
        self._header = self._value = self._disposition = b""
        self._pieces: list[bytes] = []  # of the file, until a thread has written them

    async def read(self, content_type: str, chunks: AsyncIterator[bytes]) -> list[Part]:
        """Return the parts in their order. Raises InvalidJson for what is no such form, and StorageFull."""
        _, options = parse_options_header(content_type)
        if b"boundary" not in options:
            raise _unreadable("Missing boundary in multipart.")
        try:
            parser = self._parser(options[b"boundary"])
            async for chunk in chunks:
                parser.write(chunk)
                await self._write()  # before more is read, so that memory holds one piece at a time
            parser.finalize()
        except FormParserError:
            raise _unreadable("Invalid multipart data.") from None
        whole = self._parts[: self._ended]
        return [(name, part if isinstance(part, Spooled) else _text(part)) for name, part in whole]

    def _parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
            },
        )

    def close(self) -> None:
        """Remove the file that is still there."""
        for file in self._files:
            file.close()

    @property
    def _files(self) -> list[Spooled]:
        return [part for _, part in self._parts if isinstance(part, Spooled)]

    async def _write(self) -> None:
        pieces, self._pieces = b"".join(self._pieces), []
        for file in self._files:
            if pieces or not file.size:  # an empty file is a file
                await asyncio.to_thread(file.write, pieces)

    def _on_header_field(self, chunk: bytes, start: int, end: int) -> None:
        self._header += chunk[start:end]

    def _on_header_value(self, chunk: bytes, start: int, end: int) -> None:
        self._value += chunk[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        """Begin a part: its headers say its name, and whether it is a file."""
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        if b"name" not in options:
            raise _unreadable('The Content-Disposition header field "name" must be provided.')
        part: bytearray | Spooled = bytearray()
        if b"filename" in options:
            part = Spooled(self._spool.new(), _text(options[b"filename"]))
        self._parts.append((_text(options[b"name"]), part))
        files = len(self._files)
        if files > MOST_FILES:
            raise _unreadable(f"Too many files. Maximum number of files is {MOST_FILES}.")
        if len(self._parts) - files > self._most_fields:
            raise _unreadable(f"Too many fields. Maximum number of fields is {self._most_fields}.")

    def _on_part_data(self, chunk: bytes, start: int, end: int) -> None:
        _, part = self._parts[-1]
        if isinstance(part, Spooled):
            self._pieces.append(chunk[start:end])
            return
        self._left -= end - start
        if self._left < 0:
            raise _unreadable(f"The form's texts have more than {self._text_bytes} bytes.")
        part += chunk[start:end]

    def _on_part_end(self) -> None:
        self._ended += 1


def _text(raw: bytes | bytearray) -> str:
    """UTF-8, or else Latin-1, which has a letter for every byte: some programs write names so."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _unreadable(why: str) -> InvalidJson:
    return InvalidJson(why, code="invalid_request")
