"""A backup that somebody else made: what can be seen to be wrong is refused before anything is put in place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_backup import command, place, refused

from backend.core.errors import ReelhookError
from backend.db import schema, schema_values
from backend.db.migrate import migrate
from backend.db.versions import known, schema_file, statements

pytestmark = pytest.mark.hazard(62)
NAME = "019ac000-0000-7000-8000-0000000000aa.png"
ADMIN = "INSERT INTO api_keys (id, name, prefix, hash, admin, created_at) VALUES ('{0}', '{1}', '{0}', 'x', 1, {2})"
HOOK = (
    "INSERT INTO webhook_endpoints (id, client_id, url, events, secret, created_at) "
    "SELECT id, id, 'https://example.com', {}, 'whsec_x', 1 FROM clients"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a service with a client, an admin key and a stored file."""
    folder = tmp_path_factory.mktemp("original")
    settings = place(folder)
    assert command("keys", "create", "--name", "Lena", **settings).returncode == 0
    assert command("keys", "create", "--name", "Root", "--admin", **settings).returncode == 0
    (folder / "media" / "aa").mkdir(parents=True)
    (folder / "media" / "aa" / NAME).write_bytes(b"png")
    with closing(sqlite3.connect(folder / "reelhook.db", isolation_level=None)) as database:
        (client,) = database.execute("SELECT id FROM clients").fetchone()
        database.execute(
            "INSERT INTO assets (id, client_id, kind, file_name, content_type, bytes, sha256, created_at) "
            "VALUES (?, ?, 'image', ?, 'image/png', 3, ?, 1)",
            (NAME[:36], client, NAME, hashlib.sha256(b"png").hexdigest()),
        )
    assert command("backup", folder / "backup", **settings).returncode == 0
    return folder / "backup"


@pytest.fixture
def backup(original: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(original, tmp_path / "backup"))


def seal(backup: Path) -> None:
    """Make the sums those of the files, as whoever changed them would."""
    lines = []
    for line in (backup / "SHA256SUMS").read_text().splitlines():
        path = line[66:]
        if (backup / path).is_file():
            lines.append(f"{hashlib.sha256((backup / path).read_bytes()).hexdigest()}  {path}\n")
        else:
            lines.append(f"{line}\n")
    (backup / "SHA256SUMS").write_text("".join(lines))


def change(backup: Path, *sql: str) -> None:
    """Change its database and seal it again."""
    with closing(sqlite3.connect(backup / "reelhook.db", isolation_level=None)) as database:
        for statement in sql:
            database.execute(statement)
        database.execute("PRAGMA journal_mode = DELETE")
    seal(backup)


def tell(backup: Path, **fields: Any) -> None:
    """Change what its manifest says and seal it again."""
    manifest = json.loads((backup / "manifest.json").read_text()) | fields
    (backup / "manifest.json").write_text(json.dumps(manifest))
    seal(backup)


def untouched(folder: Path) -> bool:
    """Nothing was put in place: neither a database nor a key nor a file."""
    return not [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("CREATE TRIGGER spy AFTER INSERT ON api_keys BEGIN UPDATE api_keys SET admin = 1; END", "trigger spy"),
        ("CREATE TRIGGER spy BEFORE UPDATE ON audit BEGIN SELECT 1; END", "trigger spy"),
        ("CREATE VIEW shown AS SELECT * FROM generations", "view shown"),
        (
            "CREATE VIEW endless AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
            "view endless",
        ),
        ("CREATE TABLE notes (text TEXT)", "table notes"),
        ("CREATE TABLE sqlitex_notes (text TEXT)", "table sqlitex_notes"),
        ("CREATE VIRTUAL TABLE found USING fts5(text)", "table found"),
        ("ALTER TABLE clients ADD COLUMN owner TEXT DEFAULT 'me'", "table clients with owner TEXT DEFAULT 'me'"),
        ("ALTER TABLE schema_migrations ADD COLUMN more TEXT", "schema_migrations"),
        ("ALTER TABLE clients RENAME COLUMN budget_micros TO spent", "table clients with spent BIGINT"),
        ("ALTER TABLE clients DROP COLUMN budget_micros", "table clients without budget_micros BIGINT"),
        ("CREATE INDEX slow ON generations (prompt COLLATE NOCASE)", "index slow"),
        ("CREATE UNIQUE INDEX one_client ON clients (created_at)", "index one_client"),
        ("DROP INDEX clients_deleted", "no index clients_deleted"),
        ("DROP TABLE restores", "no table restores"),
    ],
)
def test_a_schema_that_is_not_the_one_of_its_version_is_refused_by_name(
    backup: Path, tmp_path: Path, sql: str, named: str
) -> None:
    change(backup, sql)
    refused(command("restore", backup, **place(tmp_path / "new")), named)
    assert untouched(tmp_path / "new")


def rewrite(backup: Path, table: str, old: str, new: str) -> None:
    """Change the text of a table's definition, as no statement would."""
    with closing(sqlite3.connect(backup / "reelhook.db", isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?", (old, new, table))
        database.execute("PRAGMA writable_schema = RESET")
    seal(backup)


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("api_keys", "CHECK ((admin = 1) = (client_id IS NULL))", "CHECK (admin >= 0)"),
        ("api_keys", "hash TEXT NOT NULL", "hash TEXT NOT NULL DEFAULT 'x'"),
        ("api_keys", "admin INTEGER NOT NULL DEFAULT 0", "admin INTEGER NOT NULL DEFAULT 1"),
        ("generations", "'failed', 'canceled'))", "'failed', 'canceled', 'mine'))"),
        ("audit", "at BIGINT NOT NULL", "at BIGINT GENERATED ALWAYS AS (1)"),
        ("deliveries", " ON DELETE CASCADE", ""),
    ],
)
def test_a_definition_that_was_rewritten_is_refused(
    backup: Path, tmp_path: Path, table: str, old: str, new: str
) -> None:
    rewrite(backup, table, old, new)
    refused(command("restore", backup, **place(tmp_path / "new")), f"table {table}")
    assert untouched(tmp_path / "new")


@pytest.mark.parametrize("version", range(1, len(known()) + 1))
def test_a_database_of_every_version_has_its_schema(tmp_path: Path, version: int) -> None:
    file = tmp_path / "old.db"
    migrate(file, migrations=known()[:version], schema="\n".join(one.sql for one in known()[:version]))
    schema.check(file)
    schema_values.check(file)
    migrate(file)
    settle(file)
    schema.check(file)


def settle(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = DELETE")


def test_a_new_database_has_the_schema_of_its_version_also_when_it_was_looked_over(tmp_path: Path) -> None:
    migrate(tmp_path / "new.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as database:
        database.execute("INSERT INTO clients (id, name, created_at) VALUES ('c', 'C', 1)")
        database.commit()
        database.execute("ANALYZE")
    settle(tmp_path / "new.db")
    schema.check(tmp_path / "new.db")
    assert schema_file().exists() and list(statements("SELECT 1;"))


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE api_keys SET created_at = 'yesterday' WHERE admin = 1", "api_keys.created_at"),
        ("UPDATE clients SET budget_micros = 0.5", "clients.budget_micros"),
        ("UPDATE clients SET name = x'00ff'", "clients.name"),
        ("UPDATE api_keys SET expires_at = 9000000000000000", "api_keys.expires_at"),
        ("UPDATE clients SET created_at = -1", "clients.created_at"),
        (HOOK.format("'none'"), "webhook_endpoints.events"),
        (HOOK.format("'{}'"), "webhook_endpoints.events"),
        (HOOK.format("'[1]'"), "webhook_endpoints.events"),
        ("UPDATE audit SET new_values = '{'", "audit.new_values"),
        ("UPDATE audit SET new_values = '[]'", "audit.new_values"),
        ("UPDATE audit SET new_values = '" + "[" * 100_000 + "'", "audit.new_values"),
        ("UPDATE audit SET new_values = '" + "1" * 9999 + "'", "audit.new_values"),
        ("UPDATE assets SET file_name = '../../data.key'", "'../../data.key'"),
        ("UPDATE assets SET file_name = '/etc/passwd'", "'/etc/passwd'"),
        ("INSERT INTO trash (file_name, created_at) VALUES ('../../../important', 1)", "'../../../important'"),
        ("UPDATE schema_migrations SET version = 'nine' WHERE version = 1", "version"),
        ("DELETE FROM schema_migrations", "table api_keys"),
        ("DELETE FROM schema_migrations WHERE version > 3", "table audit"),
    ],
)
def test_a_row_that_no_service_wrote_is_refused(backup: Path, tmp_path: Path, sql: str, named: str) -> None:
    change(backup, sql)
    refused(command("restore", backup, **place(tmp_path / "new")), named)
    assert untouched(tmp_path / "new")


def link(path: Path, to: Path) -> None:
    path.unlink()
    path.symlink_to(to)


def behind_a_link(backup: Path, folder: Path) -> None:
    folder.rename(backup.parent / "elsewhere")
    folder.symlink_to(backup.parent / "elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.write_bytes(b"a" * 50_000_000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DISGUISES: dict[str, Callable[[Path], None]] = {
    "a link to a secret": lambda b: link(b / "media/aa" / NAME, b / "data.key"),
    "a link without an end": lambda b: link(b / "media/aa" / NAME, Path("/dev/zero")),
    "a pipe": lambda b: pipe(b / "media/aa" / NAME),
    "a database that is a pipe": lambda b: pipe(b / "reelhook.db"),
    "a key that is a link": lambda b: link(b / "data.key", Path("/dev/zero")),
    "a manifest that is a pipe": lambda b: pipe(b / "manifest.json"),
    "sums that are a device": lambda b: link(b / "SHA256SUMS", Path("/dev/zero")),
    "a folder that is a link": lambda b: behind_a_link(b, b / "media/aa"),
    "media that are elsewhere": lambda b: behind_a_link(b, b / "media"),
    "a line without an end": lambda b: endless(b / "SHA256SUMS"),
    "a file that is a folder": lambda b: folder(b / "media/aa" / NAME),
}


@pytest.mark.parametrize("how", DISGUISES)
def test_what_is_no_file_of_its_own_is_neither_followed_nor_waited_for(backup: Path, tmp_path: Path, how: str) -> None:
    DISGUISES[how](backup)
    if how not in ("sums that are a device", "a line without an end"):
        seal(backup)
    done = command("restore", backup, **place(tmp_path / "new"))
    refused(done, "")
    assert untouched(tmp_path / "new")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"created_at": "2199-01-01T00:00:00Z"}, "2199"),
        ({"created_at": "2026-11-21T10:00:00"}, "created_at"),
        ({"created_at": 1e300}, "created_at"),
        ({"files": 2}, "does not list"),
        ({"files": -1}, "does not list"),
        ({"format": 2}, "format"),
        ({"data_key": False}, "does not list"),
        ({"counts": {"generations": "many"}}, "counts"),
    ],
)
def test_a_manifest_that_lies_is_refused(backup: Path, tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    tell(backup, **fields)
    refused(command("restore", backup, **place(tmp_path / "new")), said)
    assert untouched(tmp_path / "new")


def test_counts_that_lie_are_not_repeated(backup: Path, tmp_path: Path) -> None:
    tell(backup, counts={"generations": 4711})
    done = command("restore", backup, **place(tmp_path / "new"))
    assert done.returncode == 0 and "restored 0 generations" in done.stdout
    tell(backup, counts={})
    assert command("restore", backup, **place(tmp_path / "newer")).returncode == 0


@pytest.mark.parametrize("key", [b"short", b" " * 100, b"k" * 5000])
def test_a_data_key_that_is_none_is_refused(backup: Path, tmp_path: Path, key: bytes) -> None:
    (backup / "data.key").write_bytes(key)
    seal(backup)
    refused(command("restore", backup, **place(tmp_path / "new")), "data.key")
    assert untouched(tmp_path / "new")


@pytest.mark.parametrize("name", ["media/aa/a..png", "media/aa/x.png.exe.sh", "media/aa/noending"])
def test_a_file_that_no_storage_could_have_is_refused(backup: Path, tmp_path: Path, name: str) -> None:
    (backup / name).write_bytes(b"x")
    with (backup / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {name}\n")
    tell(backup, files=2)
    refused(command("restore", backup, **place(tmp_path / "new")), Path(name).name)
    assert untouched(tmp_path / "new")


def test_the_admin_keys_that_come_along_are_listed(backup: Path, tmp_path: Path) -> None:
    stranger = ADMIN.format("evil", "a\x1b[31m b\nadmin key of yours", 1_700_000_000_000)
    old = ADMIN.format("old", "revoked", 1).replace("created_at)", "created_at, revoked_at)").replace(", 1)", ", 1, 2)")
    change(backup, stranger, old)
    done = command("restore", backup, "--json", **place(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["admin_keys"]
    assert [(each["name"], each["prefix"]) for each in listed[1:]] == [("a\x1b[31m b\nadmin key of yours", "sk_evil")]
    assert listed[0]["name"] == "Root" and listed[1]["created_at"].startswith("2023-11-14")
    assert "a backup must be trusted" in done.stderr and "\x1b" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if line.startswith("admin key ")]) == 2


def test_a_copy_that_changed_after_it_was_read_is_not_put_in_place(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.backup import checks, restoring
    from backend.config import Settings

    settings = Settings(_env_file=None, **{name.lower(): value for name, value in place(tmp_path / "new").items()})
    true = checks.check_names

    def check_and_change(database: Path) -> None:
        true(database)
        change(backup, "UPDATE clients SET name = 'another'")

    monkeypatch.setattr(checks, "check_names", check_and_change)
    sums = restoring.manifests.sums
    before = list(sums(backup))
    monkeypatch.setattr(restoring.manifests, "sums", lambda _folder: iter(before))
    with pytest.raises(ReelhookError, match="changed while it was read"):
        restoring.restore(settings, backup)
    assert not (tmp_path / "new" / "reelhook.db").exists()
