"""The SQLite file behind DATABASE_URL, looked at and brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from backend.core.errors import ReelhookError
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
