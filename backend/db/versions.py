"""Which migrations this program has, and how many of them a SQLite file has. Nothing here changes a file."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

WAIT_S = 20.0  # for somebody else who writes; a command that waits longer looks as if it hung
CRITICAL_TABLES = frozenset(
    ("clients", "campaigns", "api_keys", "assets", "generations", "deliveries", "events", "idempotency_keys")
)


class MigrationError(Exception):
    """The database cannot be brought to the current schema."""


@dataclass(frozen=True)
class Migration:
    """One numbered file; `checksum` is the SHA-256 of its text."""

    version: int
    name: str
    sql: str
    checksum: str


def known(folder: Path = HERE / "migrations") -> list[Migration]:
    """Return every migration of this program, in order. Raises MigrationError for a missing or doubled number."""
    found = []
    for file in sorted(folder.glob("*.sql")):
        number, _, name = file.stem.partition("_")
        text = file.read_text("utf-8")
        found.append(Migration(int(number), name, text, hashlib.sha256(text.encode()).hexdigest()))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"{folder}: the numbers of the migrations have gaps or doubles")
    return found


def schema_file() -> Path:
    """Return the path of `schema.sql`: inside the package when installed, beside it in a checkout."""
    inside = HERE.parent / "schema.sql"
    return inside if inside.exists() else HERE.parent.parent / "schema.sql"


def statements(text: str) -> Iterator[str]:
    """Yield the statements of a script. Raises MigrationError when it ends within one.

    `executescript` would commit before it begins, so a script could not be undone as a whole.
    """
    part = ""
    for line in text.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""
    if re.sub(r"--[^\n]*", "", part).strip():
        raise MigrationError("the script ends within a statement")


def verify(connection: sqlite3.Connection) -> None:
    """Raise MigrationError unless the tables that everything needs are there."""
    missing = CRITICAL_TABLES - tables_of(connection)
    if missing:
        raise MigrationError(f"the database lacks the tables {', '.join(sorted(missing))}")


def tables_of(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {name for (name,) in rows}


def version_of(connection: sqlite3.Connection, every: list[Migration]) -> int | None:
    """Return how many migrations the database has; None when it is empty. Raises MigrationError."""
    tables = tables_of(connection)
    if not tables:
        return None
    if "schema_migrations" not in tables:
        raise MigrationError("this database belongs to another program: it has tables, but none of our records")
    rows = connection.execute("SELECT version, checksum FROM schema_migrations ORDER BY version").fetchall()
    if rows and rows[-1][0] > len(every):
        raise MigrationError(
            f"the database is at version {rows[-1][0]}, newer than this program ({len(every)}): upgrade the program"
        )
    for (version, checksum), migration in zip(rows, every, strict=False):
        if version != migration.version or checksum != migration.checksum:
            raise MigrationError(f"{label(migration)} is not what was run on this database")
    return len(rows)


def label(migration: Migration) -> str:
    return f"{migration.version:04d}_{migration.name}"


def look(path: Path, every: list[Migration], wait_s: float = WAIT_S) -> int | None:
    """Return how many migrations the file has; None when there is nothing in it. Raises MigrationError.

    The file is opened to be read alone, so that another program's database stays as it is to the last byte.
    """
    try:
        if not path.exists() or (path.is_file() and not path.stat().st_size):
            return None
        if not path.is_file():
            raise MigrationError(f"{path}: this is not a file")
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=wait_s)) as connection:
            before = version_of(connection, every)
            if before == len(every):
                verify(connection)
            return before
    except sqlite3.OperationalError as error:
        raise MigrationError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise MigrationError(f"{path}: this is not a SQLite database: {error}") from error
    except OSError as error:
        raise MigrationError(f"{path}: {error.strerror}") from error
