"""Compare the schema of a database file that somebody gives us with the schema of its version here.

A trigger or a view in a restored file would run with our statements. While the file is checked, nothing of it is run.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from backend.core.errors import ReelhookError
from backend.db import versions
from backend.db.snapshot import reading

Shape = dict[tuple[str, str], frozenset[str]]

RECORDS = ("table", "schema_migrations")
_STATISTICS = {"sqlite_stat1", "sqlite_stat4"}  # of the query planner
_MOST_NAMED = 10


def check(copy: Path) -> None:
    """Raise ReelhookError with the names of what is missing, different or too much in the schema of a file.

    A database of another program or of a newer version is not refused here: the migrations refuse it.
    """
    with reading(copy, settled=True) as connection:
        found = shape_of(connection)
        active = sorted(f"{type} {name}" for type, name in found if type not in ("table", "index"))
        if active:
            raise ReelhookError(_refusal(copy, active))
        if RECORDS not in found:
            return
        if found[RECORDS] != _made(1)[RECORDS]:
            raise ReelhookError(_refusal(copy, [" ".join(RECORDS)]))
        (version,) = connection.execute("SELECT MAX(version) FROM schema_migrations").fetchone()
    if not isinstance(version, int | None):
        raise ReelhookError(f"{copy} is damaged: its version is no number")
    if (version or 0) <= len(versions.known()) and (wrong := list(_differences(found, version or 0))):
        raise ReelhookError(_refusal(copy, wrong))


def _made(version: int) -> Shape:
    """Return the schema that the migrations up to this version make."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for migration in versions.known()[:version]:
            for statement in versions.statements(migration.sql):
                connection.execute(statement)
        return shape_of(connection)


def shape_of(connection: sqlite3.Connection) -> Shape:
    """Return everything by type and name: of a table its columns and constraints, of all else the whole statement.

    The order of columns does not count: an upgraded database has those that came later at the end.
    """
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {
        (type, name): frozenset(_parts(str(sql)) if type == "table" else [_plain(str(sql))])
        for type, name, sql in rows
        if not (type == "index" and sql is None) and name not in _STATISTICS
    }


def _differences(found: Shape, version: int) -> Iterator[str]:
    known = _made(version)
    for type, name in _tables_first(found.keys() - known.keys()):
        yield f"{type} {name}"
    for type, name in _tables_first(known.keys() - found.keys()):
        yield f"no {type} {name}"
    for type, name in _tables_first(found.keys() & known.keys()):
        for part in sorted(found[type, name] - known[type, name]):
            yield f"{type} {name} with {part[:80]}"
        for part in sorted(known[type, name] - found[type, name]):
            yield f"{type} {name} without {part[:80]}"


def _tables_first(names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(names, key=lambda one: (one[0] == "index", one))


def _parts(sql: str) -> list[str]:
    """Return what stands between the commas of a table's outer brackets, and what comes after them."""
    text = _plain(sql)
    depth, parts = 0, [""]
    for char in text[text.find("(") + 1 :]:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if (char == "," and depth == 0) or depth < 0:
            parts.append("")
            depth = max(depth, 0)
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()] or [text]


def _plain(sql: str) -> str:
    """Return a statement without comments and with single blanks."""
    return " ".join(re.sub(r"--[^\n]*", " ", sql).split())


def _refusal(copy: Path, wrong: list[str]) -> str:
    more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
    return f"{copy} does not have the schema of its version: {', '.join(wrong[:_MOST_NAMED])}{more}"
