"""What a backup says of itself, and whether that is true."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ValidationError

from backend.backup import disk
from backend.core.errors import NotFound, ReelhookError
from backend.storage import check_name

MOST_BYTES = 256 << 20  # of a manifest: it names what was lost
MOST_LINE = 300
MOST_KEY = 4096
AHEAD = timedelta(days=1)  # a clock may be wrong

DATABASE, KEY, MEDIA, MANIFEST, SUMS = "reelhook.db", "data.key", "media", "manifest.json", "SHA256SUMS"
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({DATABASE}|{KEY}|{MANIFEST}|{MEDIA}/[0-9a-z-]{{2}}/[0-9a-z][0-9a-z.-]*)\n")


class Manifest(BaseModel):
    """`manifest.json`. `files` and `bytes` are those of the stored files.

    `deleted_meanwhile` names files that were removed with their rows while the backup was made. `lost` names files that
    the service itself does not have, or not as their rows say.
    """

    format: Literal[1] = 1
    reelhook: str
    created_at: AwareDatetime
    schema_version: int
    counts: dict[str, int]
    media: bool
    data_key: bool
    files: int
    bytes: int
    deleted_meanwhile: list[str]
    lost: list[str]

    @property
    def taken_ms(self) -> int:
        """When it was begun, in milliseconds since 1970 UTC: what is in it was so at this time or later."""
        return int(self.created_at.timestamp() * 1000)

    @property
    def lines(self) -> int:
        """How many lines SHA256SUMS has: a line for each file but itself."""
        return self.files + 2 + self.data_key


def read(folder: Path) -> Manifest:
    """Return the manifest of a backup. Raises ReelhookError when there is none that this program can read."""
    try:
        found = Manifest.model_validate_json(_small(folder / MANIFEST, MOST_BYTES))
    except FileNotFoundError:
        raise ReelhookError(f"{folder} is no backup: it has no {MANIFEST}") from None
    except ValidationError as error:
        wrong = ", ".join(str(each["loc"][0]) if each["loc"] else each["msg"] for each in error.errors())
        raise ReelhookError(f"{folder / MANIFEST} is damaged or of a newer version: {wrong}") from None
    # What is unsent is looked for since that time: a time to come would look for nothing.
    if found.created_at > datetime.now(UTC) + AHEAD:
        raise ReelhookError(f"{folder / MANIFEST} says that it will be made at {found.created_at:%Y-%m-%d %H:%M}")
    return found


def key(folder: Path) -> bytes:
    """Return the data key of a backup. Raises ReelhookError, FileNotFoundError."""
    return _small(folder / KEY, MOST_KEY)


def sums(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each path in the folder with its SHA-256, as SHA256SUMS has them. Raises ReelhookError."""
    try:
        if wrong := _no_file(folder / SUMS):
            raise ReelhookError(f"{folder / SUMS} {wrong}")
        with (folder / SUMS).open(encoding="ascii", newline="\n") as file:
            while line := file.readline(MOST_LINE):
                if not (found := _LINE.fullmatch(line)):
                    raise ReelhookError(f"{folder / SUMS} is damaged")
                yield found[2], found[1]
    except FileNotFoundError:
        raise ReelhookError(f"{folder} is no backup: it has no {SUMS}") from None
    except UnicodeDecodeError:
        raise ReelhookError(f"{folder / SUMS} is damaged") from None


def damage(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Read every file of the backup, and return what is wrong by the path of each damaged one.

    Raises ReelhookError when SHA256SUMS does not list what should be there.
    """
    listed = set()
    damaged = {}
    for path, sha256 in sums(folder):
        listed.add(path)
        if wrong := _wrong(folder, path, sha256):
            damaged[path] = wrong
    if len(listed) != manifest.lines or not {DATABASE, MANIFEST} <= listed:
        raise ReelhookError(f"the backup is damaged: {folder / SUMS} does not list all its files")
    return damaged


def _small(file: Path, most: int) -> bytes:
    """Return the content of a file that is read whole. Raises ReelhookError, FileNotFoundError."""
    if wrong := _no_file(file):
        raise ReelhookError(f"{file} {wrong}")
    if file.stat().st_size > most:
        raise ReelhookError(f"{file} is too large to be one")
    return file.read_bytes()


def _no_file(file: Path) -> str | None:
    """Return why this is not a plain file. A link could lead elsewhere; a pipe would be read for ever."""
    return None if stat.S_ISREG(file.lstat().st_mode) else "is no file, but a link or something else"


def _wrong(folder: Path, path: str, sha256: str) -> str | None:
    """What is wrong with a file of the backup, that is: with its name, the way to it, or its bytes."""
    file = folder / path
    try:
        # The list is the word of whoever made the backup: no path may lead out of the folder.
        if path.startswith(f"{MEDIA}/"):
            check_name(file.name)
            if file.parent.is_symlink() or file.parent.parent.is_symlink():
                return "is behind a link"
        if wrong := _no_file(file):
            return wrong
        return None if disk.digest(file) == sha256 else "is not what was written"
    except FileNotFoundError:
        return "is missing"
    except NotFound:
        return "has no name of a stored file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
