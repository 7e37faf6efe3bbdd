"""The SQLite file behind DATABASE_URL: brought up to date, and locked against a second process of the same kind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from backend.core.errors import ReelhookError, SettingsError
from backend.db import migrate

SQLITE_VERSION = sqlite3.sqlite_version
# Older ones can damage a file that several processes write to (sqlite.org/wal.html, "WAL-reset").
IS_SAFE_FOR_SEVERAL = sqlite3.sqlite_version_info >= (3, 51, 3)


def bring(file: Path, *, check: bool, wait_s: float = migrate.WAIT_S) -> migrate.Report:
    """Migrate the file, or with `check` only say what would be done. Raises ReelhookError with the reason."""
    try:
        found = migrate.check(file, wait_s=wait_s)
        return found if check else migrate.migrate(file, actor="cli")
    except (migrate.MigrationError, sqlite3.Error, OSError) as error:
        raise ReelhookError(f"DATABASE_URL: {error if str(file) in str(error) else f'{file}: {error}'}") from error


@contextlib.contextmanager
def only_process(path: Path, role: str) -> Iterator[bool]:
    """Hold the lock of the database; yields whether no other process can be at work on it. Raises SettingsError.

    The lock is on a file of its own: closing any descriptor of the database would drop SQLite's locks.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = path.with_name(f"{path.name}.{role if IS_SAFE_FOR_SEVERAL else 'process'}.lock")
        opened = os.fdopen(os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a")
    except OSError as error:
        raise SettingsError(f"DATABASE_URL: {error.filename}: {error.strerror}") from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(_already_used(path)) from error
        yield not IS_SAFE_FOR_SEVERAL


def _already_used(path: Path) -> str:
    if IS_SAFE_FOR_SEVERAL:
        return f"{path} is used by another Reelhook process of this kind"
    return (
        f"{path} is used by another Reelhook process; SQLite {SQLITE_VERSION} is not safe with several "
        "(3.51.3 and later are): run one `reelhook serve`, which works too"
    )
