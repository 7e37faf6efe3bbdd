"""The operating system's user who runs this process, and files that only this user may read."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path


def make_private(path: Path) -> None:
    """Make an empty file that nobody else may read, unless there is a file. SQLite gives its log the same mode.

    A database has prompts in it, the hashes of keys, and what proves a webhook.
    """
    # A file that is there is never opened: POSIX drops all locks that a process has on a file when it closes any
    # descriptor of it, so SQLite's would be gone.
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)


def user_name() -> str:
    """Return the name of the operating system's user who runs this process."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
