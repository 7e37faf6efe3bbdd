"""Downloads: bytes that arrive become a file, counted, hashed and capped, which is removed when anything fails."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backend.core.errors import AnswerTooLarge
from backend.disk import room
from backend.http.sockets import Stream

BATCH_BYTES = 256 << 10  # a thread hop for every network chunk would cost more than the write


HEAD_S = 30.0  # for the head of an answer, however it drips, and for the first bytes of its body


@dataclass(frozen=True)
class Fetched:
    """What was downloaded; `url` is where the bytes came from after redirects.

    When it is not `framed`, nothing said where the file ends, so it may be cut. `encoding` is the content coding that
    the server used although nobody asked for one; empty for none.
    """

    bytes: int
    sha256: str
    content_type: str | None
    url: str
    framed: bool = True
    encoding: str = ""


def is_framed(headers: Mapping[str, str]) -> bool:
    """Whether the answer says where it ends, other than by the connection's end."""
    return "content-length" in headers or headers.get("transfer-encoding", "").lower() == "chunked"


def encoding(headers: Mapping[str, str]) -> str:
    """Return the content coding of the answer in lower case; empty for a plain one."""
    name = headers.get("content-encoding", "").strip().lower()
    return "" if name == "identity" else name


def unzip(path: Path, cap_bytes: int) -> tuple[int, str] | None:
    """Decode a gzip file in place, and return its length and SHA-256.

    Returns None for a file that is none, is damaged or becomes too large: it stays as it came. Raises StorageFull.
    """
    plain, digest, length = path.with_name(f"{path.name}.plain"), hashlib.sha256(), 0
    try:
        with gzip.open(path) as packed, plain.open("wb") as file:
            while batch := packed.read(BATCH_BYTES):
                length += len(batch)
                if length > cap_bytes:
                    return None
                digest.update(batch)
                with room.needed():
                    file.write(batch)
            with room.needed():
                file.flush()
        plain.replace(path)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return None
    finally:
        plain.unlink(missing_ok=True)
    return length, digest.hexdigest()


async def paced(
    read: Callable[[], Awaitable[bytes]], stream: Stream, deadline: float, floor: int | None
) -> AsyncGenerator[bytes, None]:
    """Yield what is read, up to the deadline; with a `floor`, as long as so many bytes a second come.

    A deadline alone would let a server that sends a byte a second hold a place for the whole time of a large file.
    """
    began, size = time.monotonic(), 0
    stream.deadline = deadline if floor is None else min(deadline, began + HEAD_S)
    while chunk := await read():
        size += len(chunk)
        if floor is not None:
            stream.deadline = min(deadline, began + HEAD_S + size / floor)
        yield chunk


class Download:
    """One file that is being downloaded. It is written in threads, so that a slow disk holds up nobody else."""

    def __init__(self, target: Path, cap_bytes: int) -> None:
        self._target = target
        self._cap_bytes = cap_bytes
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._is_discarded = False
        self._lock = threading.Lock()

    async def take(self, chunks: AsyncIterable[bytes], headers: Mapping[str, str], url: str) -> Fetched:
        """Write all chunks. Raises `AnswerTooLarge` and `StorageFull`; then no file is left behind."""
        if int(headers.get("content-length", 0)) > self._cap_bytes:
            raise AnswerTooLarge()
        try:
            await self._write_all(chunks)
        except BaseException:
            # A thread may be writing right now, so the file is removed under the same lock, and a later write is
            # refused. Shielded: a task that is cancelled twice ends, and the file still goes.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._discard))
            raise
        found = self._bytes, self._hash.hexdigest(), headers.get("content-type")
        return Fetched(*found, url, is_framed(headers), encoding(headers))

    async def _write_all(self, chunks: AsyncIterable[bytes]) -> None:
        batch = bytearray()
        async for chunk in chunks:
            batch += chunk
            if self._bytes + len(batch) > self._cap_bytes:
                raise AnswerTooLarge()
            if len(batch) >= BATCH_BYTES:
                await asyncio.to_thread(self._write, batch)
                batch = bytearray()
        await asyncio.to_thread(self._write, batch, is_last=True)

    def _write(self, batch: bytearray, *, is_last: bool = False) -> None:
        with self._lock, room.needed():
            if self._is_discarded:
                return
            self._file = self._file or self._target.open("wb")
            self._file.write(batch)
            self._hash.update(batch)
            self._bytes += len(batch)
            if is_last:
                self._file.close()

    def _discard(self) -> None:
        with self._lock:
            self._is_discarded = True
            if self._file:
                self._file.close()
            self._target.unlink(missing_ok=True)
