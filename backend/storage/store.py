"""What every store can do, and what a name is."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from backend.core.errors import NotFound

CHUNK_BYTES = 256 << 10
ID_LENGTH = 36  # a UUID as text; its last characters are random, its first ones are the time

_NAME = re.compile(r"[0-9a-z][0-9a-z-]{1,99}\.[0-9a-z]{1,8}")


class Store(Protocol):
    """Files under flat names: an id, perhaps a word, one suffix (`0190...-poster.jpg`).

    A text that is no name raises `NotFound` everywhere: nothing can have been stored under it. A store may be a folder
    or a service far away, so it has no paths: whoever needs a path borrows one from `local`.
    """

    async def put(self, spooled: Path, name: str) -> None:
        """Move a spooled file under its name. Once this returns, it survives a power loss.

        Raises `StorageFull`. The spooled file is gone then. A reader sees the old file or the new one, never a part.
        """

    async def put_all(self, files: Sequence[tuple[Path, str]]) -> None:
        """Put several files as `put` does, in order, with fewer waits for the disk."""

    def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to, not including, `end`, in chunks of at most 256 kB. Raises `NotFound`."""

    def local(self, name: str, *, most_bytes: int | None = None) -> AbstractAsyncContextManager[Path]:
        """Lend a local file with these bytes until the block ends; it may be read, and linked to another name.

        A folder lends its own file, another store a copy in the spool. Raises `NotFound`, `TooLarge` for more than
        `most_bytes`, before anything is copied, and `StorageFull`.
        """

    async def size(self, name: str) -> int | None:
        """Return the length in bytes, or None when there is no such file."""

    async def url(self, name: str) -> str | None:
        """Return a URL where anybody can fetch the file for an hour or more without a key; None for a private store."""

    async def delete(self, name: str) -> None:
        """Remove a file. It is no error when it is gone: a deletion that a crash cut off is done again."""

    async def delete_all(self, names: Sequence[str]) -> None:
        """Remove many files. Once this returns, none comes back with a power loss."""

    def names(self) -> AsyncIterator[str]:
        """Yield every stored name, in no order."""


def check_name(name: str) -> str:
    """Return the name. Raises `NotFound` for a text that is none, such as one that leads to another folder."""
    if not _NAME.fullmatch(name):
        raise NotFound()
    return name


def folder_of(name: str) -> str:
    """Return the folder of a file, in our storage and in a backup: the last two characters of its id.

    The first characters are the time, so all files of a day would lie in one folder. Raises NotFound for no name.
    """
    return check_name(name).partition(".")[0][:ID_LENGTH][-2:]
