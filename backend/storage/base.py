"""What every storage can do, and what a name is."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.core.errors import NotFound

CHUNK_BYTES = 256 << 10

_STEM = r"[0-9a-z][0-9a-z-]{1,99}"
_NAME = re.compile(_STEM + r"\.[0-9a-z]{1,8}")
_SPOOL_NAME = re.compile(_STEM + r"(\.[0-9a-z]{1,8})?")


@dataclass(frozen=True)
class StoredFile:
    """A file that is kept; `sha256` in hex."""

    name: str
    bytes: int
    sha256: str
    content_type: str


class Storage(Protocol):
    """Files under flat names: an id, perhaps a word, one suffix (`0190...-poster.jpg`).

    A name that is none raises `NotFound` everywhere: it cannot have been stored.
    """

    def spool(self, name: str) -> Path:
        """A new temporary path, to be written by anybody and then given to `keep`; `name` may lack its suffix."""

    async def keep(self, spooled: Path, name: str) -> None:
        """Move a spooled file under its name; once this returns it survives a power loss.

        Raises `StorageFull`. A file of that name is replaced at one stroke.
        """

    async def keep_all(self, files: Sequence[tuple[Path, str]]) -> None:
        """As `keep`, in order, with fewer waits for the disk."""

    def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in chunks of at most 256 kB. Raises `NotFound`."""

    def path(self, name: str) -> Path | None:
        """The local file, when there is one; it may not exist."""

    async def size(self, name: str) -> int | None:
        """Bytes, or None when there is no such file."""

    async def delete(self, name: str) -> None:
        """Remove a file; no error when it is gone."""

    async def delete_all(self, names: Sequence[str]) -> None:
        """As `delete`, for many; once this returns, none comes back with a power loss."""

    async def free_bytes(self) -> int | None:
        """The room left, or None where nobody can say."""

    async def trouble(self) -> str | None:
        """Why nothing can be stored now, in words for the operator; None when all is well."""

    async def sweep(self, older_than_s: float) -> int:
        """Remove temporary files that nobody wrote to for so long; how many there were."""

    def names(self) -> AsyncIterator[str]:
        """Every stored name, in no order."""


def check_name(name: str) -> str:
    """The name itself; `NotFound` when it is none."""
    if not _NAME.fullmatch(name):
        raise NotFound()
    return name


def check_spool_name(name: str) -> str:
    """As `check_name`, for a name whose suffix is not known yet."""
    if not _SPOOL_NAME.fullmatch(name):
        raise NotFound()
    return name
