"""Files in a local folder, spread over sub-folders by the last two characters of their id."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

from backend.core.errors import NotFound
from backend.disk import durable, room
from backend.storage.base import CHUNK_BYTES, check_name, check_spool_name

SPOOL = "tmp"
ID_LENGTH = 36  # a UUID as text; its last characters are random, its first ones are the time
NOT_THERE = (FileNotFoundError, NotADirectoryError)

_sync_file = getattr(os, "fdatasync", os.fsync)


class Folder:
    """The local storage. No symbolic link below the root is ever followed."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._known: set[str] = set()
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._root / SPOOL).mkdir(mode=0o700, exist_ok=True)

    def spool(self, name: str) -> Path:
        return self._root / SPOOL / f"{check_spool_name(name)}.{secrets.token_hex(4)}"

    async def keep(self, spooled: Path, name: str) -> None:
        await self.keep_all([(spooled, name)])

    async def keep_all(self, files: Sequence[tuple[Path, str]]) -> None:
        # A cancelled caller does not know how far it came; the files are complete under either name.
        await asyncio.shield(asyncio.to_thread(self._keep_all, files))

    async def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        fd = await asyncio.to_thread(self._open, name)
        try:
            while end is None or start < end:
                length = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start)
                chunk = await asyncio.to_thread(os.pread, fd, length, start)
                if not chunk:
                    return
                start += len(chunk)
                yield chunk
        finally:
            os.close(fd)

    def path(self, name: str) -> Path | None:
        path = self._root / _fan(name) / name
        return None if path.parent.is_symlink() or path.is_symlink() else path

    async def size(self, name: str) -> int | None:
        path = self.path(name)
        with suppress(*NOT_THERE):
            return (await asyncio.to_thread(os.lstat, path)).st_size if path else None
        return None

    async def delete(self, name: str) -> None:
        path = self._root / _fan(name) / name
        if not path.parent.is_symlink():
            with suppress(*NOT_THERE):
                await asyncio.to_thread(path.unlink)

    async def delete_all(self, names: Sequence[str]) -> None:
        await asyncio.shield(asyncio.to_thread(self._delete_all, names))

    async def free_bytes(self) -> int | None:
        return (await asyncio.to_thread(shutil.disk_usage, self._root)).free

    async def trouble(self) -> str | None:
        try:
            await asyncio.to_thread(self._try)
        except OSError as error:
            return f"nothing can be written to {self._root}: {error.strerror}"
        return None

    async def sweep(self, older_than_s: float) -> int:
        return await asyncio.to_thread(self._sweep, time.time() - older_than_s)

    async def names(self) -> AsyncIterator[str]:
        for folder in await asyncio.to_thread(_entries, self._root):
            if folder.is_dir(follow_symlinks=False) and folder.name != SPOOL:
                for file in await asyncio.to_thread(_entries, folder):
                    if file.is_file(follow_symlinks=False):
                        yield file.name

    def _keep_all(self, files: Sequence[tuple[Path, str]]) -> None:
        """First every file's bytes, then its name, then the folders that hold the names."""
        with room.needed():
            for spooled, _ in files:
                os.chmod(spooled, 0o600)
                durable.sync(spooled, _sync_file)
            folders: dict[str, int] = {}
            try:
                for spooled, name in files:
                    fan = _fan(name)
                    if fan not in folders:
                        folders[fan] = self._folder(fan)
                    os.replace(spooled, name, dst_dir_fd=folders[fan])
                for fd in folders.values():
                    os.fsync(fd)
            finally:
                for fd in folders.values():
                    os.close(fd)

    def _delete_all(self, names: Sequence[str]) -> None:
        """First every name, then the folders that held them."""
        for fan in sorted({_fan(name) for name in names}):
            with suppress(*NOT_THERE):
                fd = os.open(self._root / fan, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    _unlink([name for name in names if _fan(name) == fan], fd)
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def _folder(self, fan: str) -> int:
        """A descriptor of a sub-folder, which is made when it is needed for the first time."""
        path = self._root / fan
        if fan not in self._known or not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)
            durable.sync(self._root)  # also when it was there: another process may have made it a moment ago
            self._known.add(fan)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    def _open(self, name: str) -> int:
        try:
            folder = os.open(self._root / _fan(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            if isinstance(error, NOT_THERE) or error.errno == errno.ELOOP:
                raise NotFound() from None
            raise
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise NotFound()

    def _try(self) -> None:
        path = self.spool("trouble")
        path.write_bytes(b"?")
        path.unlink()

    def _sweep(self, before: float) -> int:
        swept = 0
        for file in _entries(self._root / SPOOL):
            with suppress(FileNotFoundError):  # its owner kept or removed it meanwhile
                if file.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(file)
                    swept += 1
        return swept


def _fan(name: str) -> str:
    return check_name(name).partition(".")[0][:ID_LENGTH][-2:]


def _unlink(names: Sequence[str], folder: int) -> None:
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)
