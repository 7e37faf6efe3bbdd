"""The folder that a backup is made in, beside its final name."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from backend.backup import disk
from backend.core.errors import ReelhookError


@contextlib.contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside `target`, locked while it is filled, and removed at the end unless it was renamed.

    What a killed backup to the same place left is removed first.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial-{secrets.token_hex(4)}")
    with contextlib.ExitStack() as held:
        with _locked(target.parent, wait=True):  # until ours is locked, the next one would take it for a left one
            for old in filter(functools.partial(_is_left, target), list(target.parent.iterdir())):
                with contextlib.suppress(FileNotFoundError), _locked(old):
                    shutil.rmtree(old)
            disk.make_folder(partial)
            held.enter_context(_locked(partial))
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _is_left(target: Path, path: Path) -> bool:
    """Whether a backup to `target` made this folder, by its name, its kind and its owner."""
    if not re.fullmatch(re.escape(target.name) + r"\.partial-[0-9a-f]{8}", path.name):
        return False
    with contextlib.suppress(FileNotFoundError):  # that backup has just come to its end
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return False


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise ReelhookError(f"another backup is being made in {folder}") from None
    finally:
        os.close(descriptor)
