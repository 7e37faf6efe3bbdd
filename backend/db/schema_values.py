"""Check the values of a database file that somebody gives us: SQLite takes anything in any column."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.core.errors import ReelhookError
from backend.core.filing import Output
from backend.db.schema import shape_of
from backend.db.snapshot import reading

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


def _is_ref(value: Any) -> bool:
    return _is_object(value) and all(isinstance(one, str) for one in value.values())


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
        "provider_ref": _is_ref,
        "source": _is_source,
    },
    "idempotency_keys": {"body": _is_any},
    "webhook_deliveries": {"subject": _is_object},
    "webhook_endpoints": {"events": _are_texts},
}


def check(copy: Path) -> None:
    """Raise ReelhookError for a value that its column cannot have: each list that meets such a row would be a 500."""
    with reading(copy, settled=True) as connection:
        for type, table in shape_of(connection):
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
