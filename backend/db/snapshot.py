"""Take a consistent copy of the SQLite file while others write, and read what such a copy has."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.core.errors import ReelhookError, StorageFull
from backend.core.generation import FINAL
from backend.db.versions import WAIT_S
from backend.disk.owner import make_private


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """The files of a completed generation or of an asset: their names, lengths in bytes and SHA-256.

    `others` are the further files of a generation, each as name, bytes and SHA-256.
    """

    id: str
    kind: str
    file_name: str
    poster_name: str | None
    bytes: int
    sha256: str
    others: tuple[tuple[str, int, str], ...] = ()

    @property
    def files(self) -> tuple[tuple[str, int, str], ...]:
        """Return all its files, its own first."""
        return ((self.file_name, self.bytes, self.sha256), *self.others)


def take(source: Path, target: Path) -> None:
    """Write the database as it is now into a new file, which is not synced yet. Raises StorageFull, ReelhookError.

    The connection only reads, so it can neither write the log back nor hold up those who write.
    """
    make_private(target)
    with reading(source) as connection:
        # Not SQLite's online backup: it begins anew whenever another process writes, and on a busy service never ends.
        connection.execute("VACUUM INTO ?", (str(target),))


def check(copy: Path) -> None:
    """Raise ReelhookError unless every page and every reference of a copy is whole."""
    with reading(copy, settled=True) as connection:
        (told,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if told == "ok" and (lost := connection.execute("PRAGMA foreign_key_check").fetchone()):
            told = f"rows of {lost[0]} refer to nothing"
    if told != "ok":
        raise ReelhookError(f"{copy} is damaged: {told}")


def is_ours(copy: Path) -> bool:
    """Whether a copy has our record of migrations: an empty file and another program's database have none."""
    with reading(copy, settled=True) as connection:
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'"
        return connection.execute(query).fetchone() is not None


def version(copy: Path) -> int:
    """Return the number of the last migration in a copy."""
    with reading(copy, settled=True) as connection:
        return int(connection.execute("SELECT MAX(version) FROM schema_migrations").fetchone()[0] or 0)


def counts(copy: Path) -> dict[str, int]:
    """Return how many rows a copy has of what people look for, by table."""
    finals = ", ".join(f"'{status}'" for status in FINAL)
    with reading(copy, settled=True) as connection:
        found = {
            table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("clients", "campaigns", "api_keys", "assets", "generations")
        }
        unfinished = f"SELECT COUNT(*) FROM generations WHERE status NOT IN ({finals})"  # noqa: S608
        return {**found, "unfinished": connection.execute(unfinished).fetchone()[0]}


def kept(copy: Path) -> Iterator[KeptFiles]:
    """Yield everything in a copy that has files in the storage."""
    with reading(copy, settled=True) as connection:
        others = _others(connection)
        rows = connection.execute(
            """
            SELECT id, kind, file_name, poster_name, bytes, sha256 FROM generations WHERE status = 'completed'
            UNION ALL SELECT id, kind, file_name, NULL, bytes, sha256 FROM assets
            """
        )
        for id, kind, name, poster, length, sha256 in rows:
            yield KeptFiles(id, kind, name, poster, length, sha256, others.get(id, ()))


def _others(connection: sqlite3.Connection) -> dict[str, tuple[tuple[str, int, str], ...]]:
    """Return the further files of generations that have several, by id; none in a copy of an older version."""
    if not _has_several(connection):
        return {}
    rows = connection.execute(
        "SELECT id, more_files FROM generations WHERE status = 'completed' AND more_files IS NOT NULL"
    )
    return {id: _stored(json.loads(more)) for id, more in rows}


def _has_several(connection: sqlite3.Connection) -> bool:
    return "more_files" in {name for _, name, *_ in connection.execute("PRAGMA table_info(generations)")}


def _stored(files: list[dict[str, Any]]) -> tuple[tuple[str, int, str], ...]:
    return tuple((one["file_name"], one["bytes"], one["sha256"]) for one in files if "file_name" in one)


def names(copy: Path) -> Iterator[str]:
    """Yield every name of a file in a copy, whatever became of the file."""
    with reading(copy, settled=True) as connection:
        rows = connection.execute(
            """
            SELECT file_name FROM generations WHERE file_name IS NOT NULL
            UNION ALL SELECT poster_name FROM generations WHERE poster_name IS NOT NULL
            UNION ALL SELECT file_name FROM assets
            UNION ALL SELECT file_name FROM trash
            """
        )
        for (name,) in rows:
            yield str(name)
        yield from _other_names(connection)


def _other_names(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the names of further files; for a damaged list the text itself, which the check of names then refuses."""
    if _has_several(connection):
        for (more,) in connection.execute("SELECT more_files FROM generations WHERE more_files IS NOT NULL"):
            try:
                yield from [str(name) for name, length, sha256 in _stored(json.loads(more)) if f"{length:d}{sha256}"]
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                yield str(more)


def still_there(source: Path, ids: set[str]) -> set[str]:
    """Return those of these ids that the database in use still has."""
    with reading(source) as connection:
        return {
            id
            for id in ids
            if connection.execute(
                "SELECT id FROM generations WHERE id = :id UNION ALL SELECT id FROM assets WHERE id = :id", {"id": id}
            ).fetchone()
        }


@contextmanager
def reading(file: Path, *, settled: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a connection that only reads. `settled`: nobody writes there any more, so SQLite puts no file beside it."""
    query = "mode=ro&immutable=1" if settled else "mode=ro"
    try:
        address = f"{file.resolve().as_uri()}?{query}"
        with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=WAIT_S)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")  # somebody else may have made the file
            yield connection
    except sqlite3.Error as error:
        if "full" in str(error):
            raise StorageFull from error
        raise ReelhookError(f"{file}: {error}") from error
