"""Temporary files on a local disk. Each is put into the store in the end, or removed."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backend.core.errors import NotFound
from backend.core.places import Places
from backend.disk import durable, room

BATCH_BYTES = 1 << 20
COPIES = 8  # of stored files at a time: what is copied may be as large as the largest output

_NAME = re.compile(r"[0-9a-z][0-9a-z-]{1,99}(\.[0-9a-z]{1,8})?")


@dataclass(frozen=True)
class Usage:
    """How many temporary files there are, and how many bytes they have together."""

    files: int
    bytes: int


class Spool:
    """A folder of temporary files.

    For a store that is a folder it lies on the same disk, so that putting a file is a rename. It has no bound of
    its own. Those who write have one: the places for uploads and fetches, the lanes of the worker, and COPIES.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._root.mkdir(mode=0o700, exist_ok=True)
        self._copies = Places(COPIES, None, waiting=math.inf)

    def new(self, name: str = "file") -> Path:
        """Return a new path where nothing is yet. The name helps people who look into the folder; it needs no suffix.

        Raises NotFound for a name that no file could be stored under.
        """
        if not _NAME.fullmatch(name):
            raise NotFound()
        return self._root / f"{name}.{secrets.token_hex(4)}"

    @asynccontextmanager
    async def copy(self, name: str, chunks: AsyncIterable[bytes]) -> AsyncIterator[Path]:
        """Lend a file with everything that `chunks` yields, and remove it when the block ends. Raises `StorageFull`.

        Only its owner can read it, and it survives a power loss, so a hard link to it is as good as a copy. Only COPIES
        files are lent at a time, since any number of them would fill the disk. The next one waits.
        """
        async with self._copies.take(""):
            path = self.new(name)
            try:
                await write(path, chunks)
                await asyncio.to_thread(_settle, path)
                yield path
            finally:
                await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))

    async def usage(self) -> Usage:
        """Return what is there now, whoever wrote it; nothing for a folder that cannot be read: see `trouble`."""
        return await asyncio.to_thread(self._usage)

    async def free_bytes(self) -> int | None:
        """Return the bytes that are free on the disk, or None where that is unknown."""
        # Its own folder may be gone: that is told by `trouble`, and refuses no request that brings no file.
        return (await asyncio.to_thread(shutil.disk_usage, self._root.parent)).free

    async def trouble(self) -> str | None:
        """Return why nothing can be written now, in words for the operator; None when a file can be written."""
        try:
            await asyncio.to_thread(self._try)
        except OSError as error:
            return f"nothing can be written to {self._root}: {error.strerror}"
        return None

    async def sweep(self, older_than_s: float) -> int:
        """Remove files that nobody wrote to for so long; return how many."""
        return await asyncio.to_thread(self._sweep, time.time() - older_than_s)

    def _usage(self) -> Usage:
        sizes = []
        with suppress(OSError):
            for file in _entries(self._root):
                with suppress(FileNotFoundError):  # its owner put or removed it meanwhile
                    sizes.append(file.stat(follow_symlinks=False).st_size)
        return Usage(len(sizes), sum(sizes))

    def _try(self) -> None:
        path = self.new("trouble")
        path.write_bytes(b"?")
        path.unlink()

    def _sweep(self, before: float) -> int:
        swept = 0
        for file in _entries(self._root):
            with suppress(FileNotFoundError):  # its owner put or removed it meanwhile
                if file.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(file)
                    swept += 1
        return swept


async def write(path: Path, chunks: AsyncIterable[bytes]) -> tuple[int, str]:
    """Write everything that `chunks` yields; return the number of bytes and their SHA-256. Raises `StorageFull`."""
    digest, length = hashlib.sha256(), 0
    file = await asyncio.to_thread(path.open, "wb")
    try:
        batch = bytearray()
        async for chunk in chunks:
            batch += chunk
            length += len(chunk)
            if len(batch) >= BATCH_BYTES:
                await asyncio.to_thread(_append, file, batch, digest.update)
                batch = bytearray()
        await asyncio.to_thread(_append, file, batch, digest.update)
    finally:
        await asyncio.to_thread(file.close)
    return length, digest.hexdigest()


def _append(file: IO[bytes], batch: bytearray, note: Callable[[bytearray], None]) -> None:
    with room.needed():
        file.write(batch)
        file.flush()
    note(batch)


def _settle(path: Path) -> None:
    with room.needed():
        os.chmod(path, 0o600)
        durable.sync(path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)
