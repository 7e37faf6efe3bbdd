"""migrate.py: from nothing, from yesterday, again, half-way, and never over somebody else's database."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.db import migrate as module
from backend.db.migrate import check, migrate
from backend.db.versions import Migration, MigrationError, known, statements

ROOT = Path(__file__).parent.parent


def of(version: int, name: str, sql: str) -> Migration:
    return Migration(version, name, sql, hashlib.sha256(sql.encode()).hexdigest())


SECOND = of(2, "notes", "ALTER TABLE clients ADD COLUMN note TEXT;\nUPDATE clients SET note = 'old; -- really';\n")
BROKEN = of(2, "broken", "ALTER TABLE clients ADD COLUMN note TEXT;\nINSERT INTO nowhere VALUES (1);\n")

CHECK = re.compile(r"CONSTRAINT \w+ CHECK \((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


@pytest.fixture
def old(path: Path) -> Path:
    """A database of version 1 with a client in it."""
    migrate(path, migrations=known()[:1], schema=known()[0].sql)
    query(path, "INSERT INTO clients (id, name, created_at) VALUES ('c', 'Clara', 1)")
    return path


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def state(path: Path) -> tuple[bytes, int]:
    return path.read_bytes(), path.stat().st_mtime_ns


def shape(path: Path) -> dict[str, Any]:
    """Everything that makes two databases behave the same, whatever order their columns came in."""
    with closing(sqlite3.connect(path)) as db:

        def rows(sql: str) -> list[tuple[Any, ...]]:
            return sorted(db.execute(sql).fetchall(), key=repr)

        def pragma(name: str, table: str, *columns: int) -> list[tuple[Any, ...]]:
            return sorted((tuple(row[n] for n in columns) for row in rows(f"PRAGMA {name}({table})")), key=repr)

        tables = [name for (name,) in rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found: dict[str, Any] = {}
        for table in tables:
            (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            plain = " ".join(re.sub(r"--[^\n]*", "", sql).split())
            found[table] = {
                "columns": pragma("table_info", table, 1, 2, 3, 4, 5),
                "foreign": pragma("foreign_key_list", table, 2, 3, 4, 6),
                "unique": pragma("index_list", table, 2, 3, 4),
                "checks": sorted(CHECK.findall(plain)),
            }
        indexes = rows("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        return found | {name: " ".join(sql.split()) for name, sql in indexes}


def test_a_new_database_is_made_whole_and_a_second_time_nothing_happens(path: Path) -> None:
    first = migrate(path)
    assert (first.before, first.ran) == (0, ("schema.sql",))
    before = state(path)
    again = migrate(path)
    assert (again.before, again.after, again.ran, again.backup) == (len(known()), len(known()), (), None)
    assert state(path) == before
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


def test_the_schema_and_the_numbered_migrations_make_the_same_database(tmp_path: Path) -> None:
    migrate(tmp_path / "whole.db")
    every = known()
    migrate(tmp_path / "steps.db", migrations=every[:1], schema=every[0].sql)
    migrate(tmp_path / "steps.db", migrations=every)
    assert shape(tmp_path / "steps.db") == shape(tmp_path / "whole.db")
    assert len(shape(tmp_path / "whole.db")["generations"]["checks"]) == 7


def test_check_changes_nothing(old: Path, tmp_path: Path) -> None:
    before = state(old)
    assert check(old).ran == tuple(f"{one.version:04d}_{one.name}" for one in known()[1:])
    assert state(old) == before
    assert check(tmp_path / "none" / "at.db").ran == ("schema.sql",)
    assert not (tmp_path / "none").exists()


def test_an_older_database_is_brought_up_with_a_copy_made_first(old: Path) -> None:
    report = migrate(old, migrations=[*known()[:1], SECOND])
    assert (report.before, report.after, report.ran) == (1, 2, ("0002_notes",))
    assert query(old, "SELECT name, note FROM clients") == [("Clara", "old; -- really")]
    assert query(old, "SELECT version, name, checksum FROM schema_migrations")[1] == (2, "notes", SECOND.checksum)
    assert report.backup
    assert query(report.backup, "SELECT id, name FROM clients") == [("c", "Clara")]
    assert query(report.backup, "SELECT MAX(version) FROM schema_migrations") == [(1,)]
    assert not list(old.parent.glob("*.part"))


def test_a_migration_that_fails_is_undone_whole_and_told(old: Path) -> None:
    with pytest.raises(MigrationError, match="0002_broken failed and was undone: no such table: nowhere"):
        migrate(old, migrations=[*known()[:1], BROKEN])
    assert [row[1] for row in query(old, "PRAGMA table_info(clients)")] == ["id", "name", "created_at", "deleted_at"]
    assert query(old, "SELECT COUNT(*) FROM schema_migrations") == [(1,)]
    migrate(old, migrations=[*known()[:1], SECOND])


def test_two_rows_of_one_prediction_are_told_apart_before_it_may_have_only_one(tmp_path: Path) -> None:
    path, before = tmp_path / "twins.db", [one for one in known() if one.name != "one_prediction"]
    migrate(path, migrations=before[:15], schema="\n".join(one.sql for one in before[:15]))
    query(path, "INSERT INTO clients (id, name, created_at) VALUES ('c', 'c', 1)")
    query(path, "INSERT INTO campaigns (id, client_id, name, created_at) VALUES ('k', 'c', 'k', 1)")
    columns = "id, provider, provider_id, kind, status, client_id, campaign_id, model, nonce, created_at, due_at"
    columns += ", source, params, metadata"
    for names in ("'a', 'p', 'x'", "'b', 'p', 'x'", "'c', 'p', 'x'", "'d', 'q', 'x'", "'e', 'p', NULL"):
        rest = "'image', 'queued', 'c', 'k', 'm', 'n', 1, 1, '{}', '{}', '{}'"
        query(path, f"INSERT INTO generations ({columns}) VALUES ({names}, {rest})")  # noqa: S608
    migrate(path)
    found = query(path, "SELECT id, provider_id FROM generations ORDER BY id")
    assert found == [("a", "x"), ("b", "x#b"), ("c", "x#c"), ("d", "x"), ("e", None)]


def test_the_migrations_before_one_that_fails_stay(old: Path) -> None:
    third = replace(BROKEN, version=3, sql=BROKEN.sql.replace("note", "remark"))
    with pytest.raises(MigrationError, match="0003_broken"):
        migrate(old, migrations=[*known()[:1], SECOND, third])
    assert query(old, "SELECT version FROM schema_migrations") == [(1,), (2,)]
    assert query(old, "SELECT note FROM clients") == [("old; -- really",)]


def test_a_table_can_be_rebuilt_without_losing_what_refers_to_it(old: Path) -> None:
    query(old, "INSERT INTO campaigns (id, client_id, name, created_at) VALUES ('k', 'c', 'Spring', 1)")
    rebuilt = """
    CREATE TABLE fresh (id TEXT PRIMARY KEY, name TEXT NOT NULL, created_at BIGINT NOT NULL, deleted_at BIGINT);
    INSERT INTO fresh SELECT id, name, created_at, deleted_at FROM clients;
    DROP TABLE clients;
    ALTER TABLE fresh RENAME TO clients;
    """
    migrate(old, migrations=[*known()[:1], of(2, "rebuilt", rebuilt)])
    assert query(old, "SELECT client_id, name FROM campaigns") == [("c", "Spring")]


def test_a_migration_that_leaves_rows_referring_to_nothing_is_undone(old: Path) -> None:
    query(old, "INSERT INTO campaigns (id, client_id, name, created_at) VALUES ('k', 'c', 'Spring', 1)")
    with pytest.raises(MigrationError, match="rows of campaigns would refer to nothing"):
        migrate(old, migrations=[*known()[:1], of(2, "gone", "DELETE FROM clients;\n")])
    assert query(old, "SELECT name FROM clients") == [("Clara",)]


def newer(path: Path) -> None:
    query(path, "INSERT INTO schema_migrations VALUES (999, 'future', 'x', 1)")


def changed(path: Path) -> None:
    query(path, "UPDATE schema_migrations SET checksum = 'another' WHERE version = 1")


def incomplete(path: Path) -> None:
    query(path, "DROP TABLE idempotency_keys")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(newer, "newer than this program"), (changed, "not what was run"), (incomplete, "lacks the tables idempotency")],
)
def test_a_database_that_is_not_as_we_left_it_is_refused_and_left_alone(
    path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    migrate(path)
    spoil(path)
    before = state(path)
    for run in (migrate, check):
        with pytest.raises(MigrationError, match=reason):
            run(path)
    assert state(path) == before


@pytest.mark.parametrize("content", [b"notes, not a database " * 200, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for run in (migrate, check):
        with pytest.raises(MigrationError):
            run(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    query(path, "CREATE TABLE recipes (name TEXT)")
    before = state(path)
    for run in (migrate, check):
        with pytest.raises(MigrationError, match="another program"):
            run(path)
    assert state(path) == before
    assert query(path, "PRAGMA journal_mode") == [("delete",)]


def test_a_folder_or_a_place_nobody_may_write_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file" / "below.db"):
        with pytest.raises(MigrationError):
            migrate(place)


KILLED = """
import os, signal, sys
from pathlib import Path
from backend.db import migrate, versions
from backend.db.versions import Migration
migrate._record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
second = Migration(2, "notes", sys.argv[2], sys.argv[3])
migrate.migrate(Path(sys.argv[1]), migrations=[*versions.known()[:1], second])
"""


@pytest.mark.parametrize("fresh", [True, False])
def test_kill_9_in_the_middle_leaves_the_old_database_and_the_next_run_ends_it(
    path: Path, fresh: bool, request: pytest.FixtureRequest
) -> None:
    if not fresh:
        request.getfixturevalue("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), SECOND.sql, SECOND.checksum], cwd=ROOT)
    assert killed.returncode == -9
    if not fresh:
        assert query(path, "SELECT version FROM schema_migrations") == [(1,)]
        assert len(query(path, "PRAGMA table_info(clients)")) == 4
    schema = known()[0].sql + "ALTER TABLE clients ADD COLUMN note TEXT;\n"
    migrate(path, migrations=[*known()[:1], SECOND], schema=schema)
    assert query(path, "SELECT version FROM schema_migrations") == [(1,), (2,)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_several_processes_that_start_at_once_make_one_database(path: Path) -> None:
    code = "import sys; from pathlib import Path; from backend.db.migrate import migrate; migrate(Path(sys.argv[1]))"
    started = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT) for _ in range(4)]
    assert [process.wait(30) for process in started] == [0] * 4
    assert query(path, "SELECT version FROM schema_migrations") == [(one.version,) for one in known()]


def standalone(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """migrate.py by an interpreter that has nothing but the standard library."""
    environment = {"PATH": os.environ["PATH"], **settings}
    command = [sys.executable, "-S", str(ROOT / "migrate.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=30)


def test_migrate_py_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    missing = standalone(tmp_path, "--check")
    assert (missing.returncode, list(tmp_path.iterdir())) == (1, [])
    assert standalone(tmp_path).returncode == 0
    assert (tmp_path / "data" / "reelhook.db").exists()
    ready = standalone(tmp_path, "--check")
    assert (ready.returncode, ready.stdout) == (0, f"schema version {len(known())}: current\n")
    assert standalone(tmp_path, "--what").returncode == 2


def test_migrate_py_reads_the_address_as_the_service_does(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# ours\nexport DATABASE_URL='sqlite:///from-file.db'\n")
    assert standalone(tmp_path).returncode == 0
    assert (tmp_path / "from-file.db").exists()
    assert standalone(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/absolute.db").returncode == 0
    assert (tmp_path / "absolute.db").exists()
    refused = standalone(tmp_path, DATABASE_URL="mysql://user:hidden@host/db")
    assert refused.returncode == 1 and refused.stderr.startswith("migrate: ") and "hidden" not in refused.stderr
    (tmp_path / "notes").write_text("x" * 5000)
    refused = standalone(tmp_path, DATABASE_URL="sqlite:///notes")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr


def test_numbers_without_gaps_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("")
    (tmp_path / "0003_b.sql").write_text("")
    with pytest.raises(MigrationError, match="gaps or doubles"):
        module.known(tmp_path)


def test_statements_are_told_apart_by_meaning_and_not_by_semicolons() -> None:
    script = "-- one; two\nINSERT INTO t VALUES ('a;b');\nCREATE TRIGGER x AFTER INSERT ON t BEGIN\nSELECT 1;\nEND;\n"
    assert [part.split()[-1] for part in statements(script)] == ["('a;b');", "END;"]
    with pytest.raises(MigrationError, match="within a statement"):
        list(statements("SELECT 1;\nSELECT"))
