"""The schema of a database file that somebody hands us, compared with the one its version has here.

A trigger or a view in it would run with our statements. Nothing of the file is run while it is looked at.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from backend.core.errors import ReelhookError
from backend.core.filing import Output
from backend.db import versions
from backend.db.snapshot import reading

Shape = dict[tuple[str, str], frozenset[str]]

RECORDS = ("table", "schema_migrations")
_STATISTICS = {"sqlite_stat1", "sqlite_stat4"}  # of the query planner
_MOST_NAMED = 10
_TYPES = {
    "TEXT": "'text'",
    "INTEGER": "'integer'",
    "BIGINT": "'integer'",
    "DOUBLE PRECISION": "'real', 'integer'",
}
_TIME = re.compile(r"(^|_)(at|until|since)$")
_LAST_MS = 253_402_300_799_999  # of the year 9999: what comes later cannot be shown


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_source(value: Any) -> bool:
    return _is_object(value) and _is_object(value.get("end_image") or {})


def _are_files(value: Any) -> bool:
    known = Output.__dataclass_fields__.keys()
    return isinstance(value, list) and all(
        _is_object(one) and isinstance(one.get("index"), int) and one.keys() <= known for one in value
    )


def _is_bill(value: Any) -> bool:
    return _is_object(value) and value.keys() <= {"possibly_charged", "cost_actual_micros"}


def _is_any(value: Any) -> bool:
    return True


_JSON: dict[str, dict[str, Callable[[Any], bool]]] = {
    "audit": {"old_values": _is_object, "new_values": _is_object},
    "events": {"subject": _is_object},
    "generations": {
        "bill_told": _is_bill,
        "metadata": _is_object,
        "more_files": _are_files,
        "outputs": _are_texts,
        "params": _is_object,
        "source": _is_source,
    },
    "idempotency_keys": {"body": _is_any},
    "webhook_deliveries": {"subject": _is_object},
    "webhook_endpoints": {"events": _are_texts},
}


def check(copy: Path) -> None:
    """Raise ReelhookError, with names, for what the schema of its version has not, has otherwise or has beside it.

    What is no database of ours, or of a newer version, is left to the migrations to refuse.
    """
    with reading(copy, settled=True) as connection:
        found = _shape(connection)
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


def check_types(copy: Path) -> None:
    """Raise ReelhookError for a value that its column cannot have: SQLite would take it, and we could not read it."""
    with reading(copy, settled=True) as connection:
        for type, table in _shape(connection):
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall() if type == "table" else []
            for _, name, declared, *_ in columns:
                condition = f"typeof({name}) NOT IN ('null', {_TYPES[declared]})"
                if _TIME.search(name):
                    condition += f" OR {name} NOT BETWEEN 0 AND {_LAST_MS}"
                if connection.execute(f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1").fetchone():  # noqa: S608
                    raise ReelhookError(f"{copy} has a value in {table}.{name} that is not of its type")
                _check_json(connection, table, name)


def _check_json(connection: sqlite3.Connection, table: str, name: str) -> None:
    fits = _JSON.get(table, {}).get(name)
    if fits is None:
        return
    columns = name  # one of the constant list above
    every = f"SELECT DISTINCT {columns} FROM {table} WHERE {columns} IS NOT NULL"  # noqa: S608
    for (text,) in connection.execute(every):
        try:
            is_right = fits(json.loads(text))
        except (ValueError, RecursionError):
            is_right = False
        if not is_right:
            raise ReelhookError(f"a value in {table}.{name} is not what it should be: {text[:80]!r}")


def _made(version: int) -> Shape:
    """The schema that the migrations make."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for migration in versions.known()[:version]:
            for statement in versions.statements(migration.sql):
                connection.execute(statement)
        return _shape(connection)


def _shape(connection: sqlite3.Connection) -> Shape:
    """Everything by type and name: of a table its columns and constraints in any order, else the whole statement.

    An older database has the columns that came later at the end.
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
    """What stands between the commas of a table's outer brackets, and what comes behind them."""
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
    """Without comments and with single blanks."""
    return " ".join(re.sub(r"--[^\n]*", " ", sql).split())


def _refusal(copy: Path, wrong: list[str]) -> str:
    more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
    return f"{copy} does not have the schema of its version: {', '.join(wrong[:_MOST_NAMED])}{more}"
