"""The operating system's user who runs this process, and files that only this user may read."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path


def make_private(path: Path) -> None:
    """An empty file that nobody else may read, unless there is one: what SQLite puts beside it is as private.

    In it are prompts, the hashes of keys, and what proves a webhook.
    """
    with contextlib.suppress(FileExistsError):  # never opened again: closing it would drop the locks SQLite has on it
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)


def user_name() -> str:
    """The operating system's user who runs this process."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
