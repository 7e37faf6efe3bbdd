"""What must hold after every story, whatever went wrong in it: nothing lost, nothing paid twice, nothing half."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

FINAL = ("completed", "failed", "canceled")
Row = sqlite3.Row


def audit(folder: Path, ledger: dict[str, Any], accepted: Iterable[str] = (), *, finished: bool = True) -> None:
    """Compare the database and the storage in `folder` with the provider's ledger."""
    with closing(sqlite3.connect(f"file:{folder}/reelhook.db?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        _check_database(connection)
        rows = {row["id"]: row for row in connection.execute("SELECT * FROM generations")}
        assert set(accepted) <= rows.keys(), "an accepted request was lost"
        _check_creates(rows, ledger)
        _check_events(rows, connection.execute("SELECT * FROM events ORDER BY created_at, id").fetchall())
        if finished:
            _check_finished(rows, connection)
            _check_files(folder / "media", rows, connection.execute("SELECT * FROM assets").fetchall())


def creates_of(ledger: dict[str, Any], id: str) -> list[dict[str, Any]]:
    """The creates that were sent for one generation, which its webhook URL names."""
    return [create for create in ledger["creates"] if f"/{id}/" in (create["webhook"] or "")]


def _check_database(connection: sqlite3.Connection) -> None:
    assert [tuple(row) for row in connection.execute("PRAGMA integrity_check")] == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def _check_creates(rows: dict[str, Row], ledger: dict[str, Any]) -> None:
    """At most one prediction a generation, and nothing sent again after an answer nobody saw."""
    made = [create for create in ledger["creates"] if create["created"]]
    assert len(made) <= len(rows), "more predictions than generations"
    for id in rows:
        sent = creates_of(ledger, id)
        for earlier in sent[:-1]:
            assert not earlier["created"] and earlier["answered"], f"{id} was sent again after {earlier}"
    by_prediction = defaultdict(list)
    for row in rows.values():
        if row["provider_id"]:
            by_prediction[row["provider_id"]].append(row["id"])
    assert all(len(ids) == 1 for ids in by_prediction.values()), f"one prediction, two generations: {by_prediction}"


def _check_events(rows: dict[str, Row], events: list[Row]) -> None:
    """One event for the final status, none after it, and none of another end."""
    told = defaultdict(list)
    for event in events:
        told[event["generation_id"]].append(event["type"].removeprefix("generation."))
    for id, row in rows.items():
        ends = [type for type in told[id] if type in FINAL]
        assert ends == ([row["status"]] if row["status"] in FINAL else []), f"{id} is {row['status']}, told {ends}"
        assert set(told[id]) - set(ends) <= {"processing"}


def _check_finished(rows: dict[str, Row], connection: sqlite3.Connection) -> None:
    open_rows = {id: row["status"] for id, row in rows.items() if row["status"] not in FINAL}
    assert not open_rows, f"never ended: {open_rows}"
    assert all(row["lease_owner"] is None for row in rows.values())
    unhandled = connection.execute("SELECT COUNT(*) FROM deliveries WHERE handled_at IS NULL").fetchone()[0]
    assert unhandled == 0


def _check_files(media: Path, rows: dict[str, Row], assets: list[Row]) -> None:
    """A file for each completed row, with its bytes; frames beside their videos; nothing else."""
    files = {path.name: path for path in media.rglob("*") if path.is_file()}
    completed = [row for row in rows.values() if row["status"] == "completed"]
    for row in [*completed, *assets]:
        content = files.pop(row["file_name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (row["bytes"], row["sha256"]), row["id"]
    for row in completed:
        assert files.pop(row["poster_name"]).stat().st_size > 0
    films = tuple(row["id"] for row in [*completed, *assets] if row["kind"] == "video")
    left = [name for name in files if not (films and name.startswith(films))]
    assert not left, f"files without rows: {left}"
