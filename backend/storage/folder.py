"""Files in a local folder, spread over sub-folders by the last two characters of their id."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from backend.core.errors import NotFound, TooLarge
from backend.disk import durable, room
from backend.storage.store import CHUNK_BYTES, check_name, folder_of

SPOOL = "tmp"  # the folder that is no part of the store
NOT_THERE = (FileNotFoundError, NotADirectoryError)

_sync_file = getattr(os, "fdatasync", os.fsync)


class Folder:
    """The store on the local disk. No symbolic link below the root is ever followed."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._known: set[str] = set()
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(self, spooled: Path, name: str) -> None:
        await self.put_all([(spooled, name)])

    async def put_all(self, files: Sequence[tuple[Path, str]]) -> None:
        # A cancelled caller does not know how far it came; the files are complete under either name.
        await asyncio.shield(asyncio.to_thread(self._put_all, files))

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

    @asynccontextmanager
    async def local(self, name: str, *, most_bytes: int | None = None) -> AsyncIterator[Path]:
        size = self._size(name)
        if size is None:
            raise NotFound()
        if most_bytes is not None and size > most_bytes:
            raise TooLarge(f"The file has more than {most_bytes} bytes.")
        yield self._root / folder_of(name) / name

    async def size(self, name: str) -> int | None:
        return await asyncio.to_thread(self._size, name)

    async def url(self, name: str) -> str | None:
        check_name(name)
        return None

    async def delete(self, name: str) -> None:
        path = self._root / folder_of(name) / name
        if not path.parent.is_symlink():
            with suppress(*NOT_THERE):
                await asyncio.to_thread(path.unlink)

    async def delete_all(self, names: Sequence[str]) -> None:
        await asyncio.shield(asyncio.to_thread(self._delete_all, names))

    async def names(self) -> AsyncIterator[str]:
        for folder in await asyncio.to_thread(_entries, self._root):
            if folder.is_dir(follow_symlinks=False) and folder.name != SPOOL:
                for file in await asyncio.to_thread(_entries, folder):
                    if file.is_file(follow_symlinks=False):
                        yield file.name

    def _put_all(self, files: Sequence[tuple[Path, str]]) -> None:
        """Sync every file's bytes, then rename, then sync the folders.

        In another order a power loss could leave a name with other bytes, or a row whose file has no name.
        """
        with room.needed():
            for spooled, _ in files:
                os.chmod(spooled, 0o600)
                durable.sync(spooled, _sync_file)
            folders: dict[str, int] = {}
            try:
                for spooled, name in files:
                    fan = folder_of(name)
                    if fan not in folders:
                        folders[fan] = self._folder(fan)
                    os.replace(spooled, name, dst_dir_fd=folders[fan])
                for fd in folders.values():
                    os.fsync(fd)
            finally:
                for fd in folders.values():
                    os.close(fd)

    def _delete_all(self, names: Sequence[str]) -> None:
        """Remove every name, then sync the folders that held them."""
        for fan in sorted({folder_of(name) for name in names}):
            with suppress(*NOT_THERE):
                fd = os.open(self._root / fan, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    _unlink([name for name in names if folder_of(name) == fan], fd)
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def _folder(self, fan: str) -> int:
        """Return a descriptor of a sub-folder, which is made when it is needed for the first time."""
        path = self._root / fan
        if fan not in self._known or not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)
            durable.sync(self._root)  # also when it was there: another process may have made it a moment ago
            self._known.add(fan)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    def _size(self, name: str) -> int | None:
        path = self._root / folder_of(name) / name
        if not path.parent.is_symlink():
            with suppress(*NOT_THERE):
                found = path.lstat()
                return found.st_size if stat.S_ISREG(found.st_mode) else None
        return None

    def _open(self, name: str) -> int:
        try:
            folder = os.open(self._root / folder_of(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # NONBLOCK: without it, to open a named pipe that somebody put there waits for ever.
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


def _unlink(names: Sequence[str], folder: int) -> None:
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)
