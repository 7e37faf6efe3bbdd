"""What SQLite reports, as a decision: wait, make room, or believe the file no more."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.core.errors import OutOfSpace, Unavailable
from backend.disk import faults, room

_FAULTS = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PROBE_BYTES = 1 << 18


@contextmanager
def mapped(connection: sqlite3.Connection) -> Iterator[None]:
    """Wrap a transaction: raise OutOfSpace or Unavailable, and leave no transaction open whatever happened."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_fault(error):
            raise _judged(connection, error) from error
        if not isinstance(error, sqlite3.OperationalError):
            raise
        reason = str(error)
        if "full" in reason:
            raise OutOfSpace(retry_after=60) from error
        if "locked" in reason or "busy" in reason:
            raise Unavailable("The database is busy.", retry_after=1) from error
        if "unable to open" in reason:
            raise Unavailable("The database cannot be read or written.", retry_after=30) from error
        raise
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def is_fault(error: Exception) -> bool:
    """Whether the file could not be read or written: what it holds from now on cannot be believed."""
    code = _code(error)
    return code & 0xFF in _FAULTS and code != sqlite3.SQLITE_IOERR_NOMEM


def _code(error: Exception) -> int:
    """SQLite's extended code; 0 for an error that is not SQLite's."""
    return getattr(error, "sqlite_errorcode", None) or 0


def _judged(connection: sqlite3.Connection, error: sqlite3.DatabaseError) -> OutOfSpace | Unavailable:
    """Return the error to raise. SQLite also reports a quota as an "I/O error", so the disk is asked for room."""
    file = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    if _code(error) & 0xFF == sqlite3.SQLITE_IOERR and _is_full(file):
        return OutOfSpace(retry_after=60)
    return faults.declare(f"{file.name}: {error} ({error.sqlite_errorname})")


def _is_full(file: Path) -> bool:
    """Whether the disk takes no more: tried with a file as long as the longer one that SQLite writes, mostly a hole."""
    try:
        with tempfile.TemporaryFile(dir=file.parent) as probe:
            probe.seek(max(each.stat().st_size for each in (file, Path(f"{file}-wal")) if each.exists()))
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return room.is_short(error)
    return False
