"""Files that are copied or linked whole, hashed on the way, and synced to the disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from backend.disk import durable

CHUNK_BYTES = 1 << 20


def create(path: Path) -> int:
    """Return a descriptor of a new file that only its owner may use, whatever the umask. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may use, unless it exists."""
    try:
        path.mkdir(mode=0o700)
        path.chmod(0o700)
    except FileExistsError:
        pass  # made for another file


def link_or_copy(source: Path, target: Path) -> str:
    """Make `target` the same file as `source`, or a copy where that cannot be. Returns the SHA-256 of its bytes.

    A stored file never changes under its name, so a second name for it is as good as a copy. It is read all the same:
    its bytes may have been damaged on the disk. Raises FileNotFoundError.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, one without links, or somebody else's file
        return copy(source, target)
    return digest(target)


def copy(source: Path, target: Path) -> str:
    """Copy into a new file of its owner alone that survives a power loss. Returns the SHA-256."""
    digest = hashlib.sha256()
    with source.open("rb") as read, open(create(target), "wb") as written:
        while chunk := read.read(CHUNK_BYTES):
            written.write(chunk)
            digest.update(chunk)
        written.flush()
        os.fsync(written.fileno())
    return digest.hexdigest()


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folders(root: Path) -> None:
    """Sync a folder and all folders in it: the names of files survive a power loss from here on."""
    for folder, _, _ in os.walk(root, topdown=False):
        durable.sync(Path(folder))
