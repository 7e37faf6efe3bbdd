"""Bring a SQLite file to the current schema. Needs the standard library alone, and is safe to run at every start.

An empty database is made from `schema.sql`. An older one gets the numbered migrations that it lacks, each in one
transaction with its record. A file that will be changed is copied first.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from backend.core.ids import new_id
from backend.db.versions import (
    WAIT_S,
    Migration,
    MigrationError,
    known,
    label,
    look,
    schema_file,
    statements,
    tables_of,
    verify,
    version_of,
)
from backend.disk import durable
from backend.disk.owner import make_private, user_name

__all__ = ["WAIT_S", "MigrationError", "Report", "check", "migrate"]


@dataclass(frozen=True)
class Report:
    """What was done, or what `check` would do: the versions that were run, and where the old file was copied to."""

    before: int
    after: int
    ran: tuple[str, ...]
    backup: Path | None = None


def migrate(
    path: Path, *, migrations: list[Migration] | None = None, schema: str | None = None, actor: str = "system"
) -> Report:
    """Bring the file to the current schema, or make it. The second time nothing is changed.

    `actor` is who the audit log says did it: `cli` for somebody at the command line. Raises MigrationError when it is
    not our database or newer than the program, and when a migration was changed after it was run, or failed.
    """
    every = known() if migrations is None else migrations
    look(path, every)  # what is not ours is left exactly as it is
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(path)
        with closing(_connect(path)) as connection:
            report = _bring(connection, path, every, schema, actor)
            verify(connection)
    except (OSError, sqlite3.Error) as error:
        raise MigrationError(f"{path}: {error}") from error
    return report


def _bring(
    connection: sqlite3.Connection, path: Path, every: list[Migration], schema: str | None, actor: str
) -> Report:
    before = version_of(connection, every)
    if before is not None:
        return _upgrade(connection, path, before, every, actor)
    _build(connection, schema or schema_file().read_text("utf-8"), every)
    return Report(0, len(every), ("schema.sql",))


def check(path: Path, *, wait_s: float = WAIT_S) -> Report:
    """Return what `migrate` would do, and change nothing. Raises MigrationError as `migrate` would.

    `wait_s` is how long a locked file is waited for.
    """
    every = known()
    before = look(path, every, wait_s)
    if before is None:
        return Report(0, len(every), ("schema.sql",))
    return Report(before, len(every), tuple(label(one) for one in every[before:]))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=WAIT_S)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Off, as SQLite advises: a migration that rebuilds a table would empty those that refer to it.
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


def _build(connection: sqlite3.Connection, schema: str, every: list[Migration]) -> None:
    """Make the whole schema with the record of every migration, or nothing."""
    with _transaction(connection):
        if tables_of(connection):  # another process was faster
            return
        for statement in statements(schema):
            connection.execute(statement)
        for migration in every:
            _record(connection, migration)


def _upgrade(connection: sqlite3.Connection, path: Path, before: int, every: list[Migration], actor: str) -> Report:
    missing = every[before:]
    if not missing:
        return Report(before, before, ())
    backup = _copy(connection, path, before)
    for migration in missing:
        with _transaction(connection):
            # Asked again under the write lock: two processes that start together both found the old version.
            if (version_of(connection, every) or 0) >= migration.version:
                continue
            _run(connection, migration)
            _record(connection, migration)
            _tell(connection, migration, actor)
    return Report(before, len(every), tuple(label(one) for one in missing), backup)


def _run(connection: sqlite3.Connection, migration: Migration) -> None:
    try:
        for statement in statements(migration.sql):
            connection.execute(statement)
    except sqlite3.Error as error:
        raise MigrationError(f"{label(migration)} failed and was undone: {error}") from error
    if lost := connection.execute("PRAGMA foreign_key_check").fetchone():
        raise MigrationError(f"{label(migration)} was undone: rows of {lost[0]} would refer to nothing")


def _record(connection: sqlite3.Connection, migration: Migration) -> None:
    connection.execute(
        "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
        (migration.version, migration.name, migration.checksum, int(time.time() * 1000)),
    )


def _tell(connection: sqlite3.Connection, migration: Migration, actor: str) -> None:
    """Keep in the audit log who upgraded the database, as soon as there is one."""
    if "audit" not in tables_of(connection):
        return
    now = int(time.time() * 1000)
    connection.execute(
        """
        INSERT INTO audit (id, at, action, actor, actor_name, object_type, old_values, new_values)
        VALUES (:id, :at, 'database.migrated', :actor, :name, 'database', :old, :new)
        """,
        {
            "id": new_id(now),
            "at": now,
            "actor": actor,
            "name": user_name(),
            "old": json.dumps({"version": migration.version - 1}),
            "new": json.dumps({"version": migration.version, "name": migration.name}),
        },
    )


class _transaction:
    """A block from BEGIN IMMEDIATE to COMMIT; an exception undoes all of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _copy(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Make a consistent copy beside the file, and return its path.

    VACUUM INTO does not sync its output, and an interruption leaves a broken file. So it gets its name after the sync.
    """
    target = path.with_name(f"{path.name}.before-{version + 1:04d}.{int(time.time())}")
    rough = target.with_name(target.name + ".part")
    rough.unlink(missing_ok=True)
    make_private(rough)
    connection.execute("VACUUM INTO ?", (str(rough),))
    durable.sync(rough)
    rough.rename(target)
    durable.sync(path.parent)
    return target
