"""From the first schema to today's with work in hand: it is finished; cut off anywhere, the database is old or new."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crashes import strace
from emulating import TINY, Provider, emulating, png, until
from gateway import Gateway, gateway
from test_migrate import query, shape

from backend.cli.processes import COMMAND, environment
from backend.core.generation import ACTIVE, FINAL
from backend.db.migrate import migrate
from backend.db.versions import Migration, MigrationError, known

pytestmark = pytest.mark.story

ROOT = Path(__file__).parent.parent
FIRST = known()[:1]
WITHOUT_WORKER = (
    sys.executable,
    "-c",
    "import sys; sys.argv.append('--no-worker'); from backend.cli import main; main()",
)
FAULTS: list[dict[str, Any]] = [
    {"kind": "delay", "delay_s": 12, "match": {"prompt_contains": "long"}},
    {"kind": "delay", "delay_s": 4, "match": {"prompt_contains": "a while"}},
    {"kind": "failed", "match": {"prompt_contains": "fails"}},
    {"kind": "create_hang", "delay_s": 20, "match": {"prompt_contains": "hangs"}},
    {"kind": "reset_after", "match": {"prompt_contains": "breaks"}},
    {"kind": "webhook_lost", "match": {"prompt_contains": "unheard"}},
    {"kind": "list_empty"},
    {"kind": "output_slow", "bytes_per_s": 1, "match": {"prompt_contains": "drips"}},
]
EXPECTED = {
    "done": "completed",
    "it fails": "failed",
    "long, and canceled": "canceled",
    "long": "completed",
    "a while": "completed",
    "long film": "completed",
    "hangs unheard": "completed",
    "breaks unheard": "completed",
    "drips": "completed",
    "queued": "completed",
    "asked with a key": "completed",
    "a film of an asset": "completed",
}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with emulating(replace(TINY, webhook_delays_s=(0.2,) * 100)) as provider:
        yield provider


@pytest.fixture
def service(tmp_path: Path, provider: Provider) -> Iterator[Gateway]:
    with gateway(tmp_path, provider) as service:
        yield service


def rows(path: Path, sql: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]


def with_a_worker(service: Gateway) -> dict[str, str]:
    """One generation in each stage that a worker brings it to, by its prompt."""
    prompts = ("done", "it fails", "long, and canceled", "long", "a while", "hangs unheard", "breaks unheard", "drips")
    ids = {prompt: service.ask(prompt=prompt)["id"] for prompt in prompts}
    ids["long film"] = service.ask("video", prompt="long film")["id"]
    service.reach(ids["long, and canceled"], "processing")
    assert service.cancel(ids["long, and canceled"]).status_code < 300
    for prompt, stage in {
        "done": "completed",
        "it fails": "failed",
        "long, and canceled": "canceled",
        "long": "processing",
        "a while": "processing",
        "hangs unheard": "submitting",
        "breaks unheard": "unclear",
        "drips": "storing",
        "long film": "waiting",
    }.items():
        service.reach(ids[prompt], stage)
    return ids


def ask_with_a_key(service: Gateway) -> tuple[str, bool]:
    """The id, and whether it was the answer to an earlier request."""
    wanted = {"campaign_id": service.campaign_id, "prompt": "asked with a key"}
    answer = service.http.post("/api/v2/generate/image", json=wanted, headers={"idempotency-key": "once"})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"], "idempotent-replayed" in answer.headers


def without_a_worker(service: Gateway) -> dict[str, str]:
    """What waits for one: rows in the queue, a kept webhook, a file of an asset that was deleted."""
    asset = service.upload(png())
    ids = {
        "queued": service.ask(prompt="queued")["id"],
        "asked with a key": ask_with_a_key(service)[0],
        "a film of an asset": service.ask("video", prompt="a film of an asset", asset_id=asset)["id"],
    }
    assert service.http.delete(f"/api/v2/assets/{service.upload(png())}").status_code == 204
    path = service.folder / "reelhook.db"
    until(lambda: query(path, "SELECT 1 FROM deliveries WHERE handled_at IS NULL"))
    assert query(path, "SELECT 1 FROM trash")
    return ids


def as_released(path: Path, migrations: list[Migration]) -> None:
    """The same rows in a database of an earlier schema, column by column; what came later is left out."""
    first = path.with_name("first.db")
    migrate(first, migrations=migrations, schema="\n".join(one.sql for one in migrations))
    with closing(sqlite3.connect(first, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS today", (str(path),))
        tables = [name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for table in set(tables) - {"schema_migrations"}:
            there = {row[1] for row in connection.execute(f"PRAGMA today.table_info({table})")}
            names = ", ".join(
                row[1] for row in connection.execute(f"PRAGMA main.table_info({table})") if row[1] in there
            )
            connection.execute(f"INSERT OR REPLACE INTO main.{table} ({names}) SELECT {names} FROM today.{table}")  # noqa: S608
        assert connection.execute("PRAGMA main.foreign_key_check").fetchall() == []
    for old in path.parent.glob("reelhook.db*"):
        old.unlink()
    first.rename(path)
    for left in path.parent.glob("first.db*"):
        left.unlink()


def test_an_upgrade_from_the_first_schema_finishes_work_in_every_stage(
    service: Gateway, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = service.folder / "reelhook.db"
    owner = service.client("Clara")
    made = service.http.post("/api/v2/keys", json={"name": "Clara's", "client_id": owner}).json()
    assert provider.spoil(*FAULTS).status_code < 300
    ids = with_a_worker(service)
    service.kill()
    with monkeypatch.context() as changed:
        changed.setattr("gateway.COMMAND", WITHOUT_WORKER)
        service.start()
        ids |= without_a_worker(service)
        service.kill()
    provider.spoil()
    assert {row["status"] for row in rows(path, "SELECT status FROM generations")} == {*ACTIVE, *FINAL}

    as_released(path, FIRST)
    assert query(path, "SELECT version FROM schema_migrations") == [(1,)]
    service.start()
    assert query(path, "SELECT version FROM schema_migrations") == [(one.version,) for one in known()]
    assert len(list(path.parent.glob("reelhook.db.before-*"))) == (1 if len(known()) > 1 else 0)
    assert {prompt: service.ended(id, within_s=40)["status"] for prompt, id in ids.items()} == EXPECTED
    service.accepted += ids.values()
    assert ask_with_a_key(service) == (ids["asked with a key"], True)
    until(lambda: not query(path, "SELECT 1 FROM deliveries WHERE handled_at IS NULL"))
    until(lambda: not query(path, "SELECT 1 FROM generations WHERE lease_owner IS NOT NULL"))

    assert service.stop() == 0
    service.settings["AUTH_MODE"] = "keys"
    service.start()
    assert service.http.get(f"/api/v2/clients/{owner}", headers={"x-api-key": made["key"]}).json()["name"] == "Clara"


NEXT_SQL = """
CREATE TABLE fresh (id TEXT PRIMARY KEY, name TEXT NOT NULL, created_at BIGINT NOT NULL, deleted_at BIGINT, note TEXT);
INSERT INTO fresh (id, name, created_at, deleted_at) SELECT id, name, created_at, deleted_at FROM clients;
DROP TABLE clients;
ALTER TABLE fresh RENAME TO clients;
CREATE INDEX clients_noted ON clients (note);
"""
EVERY = [*known(), Migration(len(known()) + 1, "next", NEXT_SQL, hashlib.sha256(NEXT_SQL.encode()).hexdigest())]
UPGRADE = f"""
import sys
from pathlib import Path
from backend.db.migrate import migrate
from backend.db.versions import Migration, known
last = Migration({EVERY[-1].version}, "next", {NEXT_SQL!r}, "{EVERY[-1].checksum}")
migrate(Path(sys.argv[1]), migrations=[*known(), last])
"""


def first_database(folder: Path) -> Path:
    """A database of the first schema with two clients and a campaign."""
    path = folder / "reelhook.db"
    migrate(path, migrations=FIRST, schema=FIRST[0].sql)
    for sql in (
        "INSERT INTO clients (id, name, created_at) VALUES ('c', 'Clara', 1), ('d', 'Dora', 2)",
        "INSERT INTO campaigns (id, client_id, name, created_at) VALUES ('k', 'c', 'Spring', 1)",
    ):
        query(path, sql)
    return path


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What a database of each version looks like."""
    path = first_database(tmp_path_factory.mktemp("shapes"))
    found = {}
    for count in range(1, len(EVERY) + 1):
        migrate(path, migrations=EVERY[:count])
        found[count] = shape(path)
    return found


def check_whole(path: Path, shapes: dict[int, dict[str, Any]]) -> int:
    """The version it has: with exactly that schema, every row, and a whole copy when anything was changed."""
    versions = [version for (version,) in query(path, "SELECT version FROM schema_migrations ORDER BY version")]
    assert versions == list(range(1, len(versions) + 1))
    assert shape(path) == shapes[len(versions)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)] and query(path, "PRAGMA foreign_key_check") == []
    assert query(path, "SELECT id, name FROM clients ORDER BY id") == [("c", "Clara"), ("d", "Dora")]
    copies = list(path.parent.glob("reelhook.db.before-0002.*[0-9]"))
    assert copies or len(versions) == 1
    for copy in copies:
        assert shape(copy) == shapes[1] and query(copy, "PRAGMA integrity_check") == [("ok",)]
        assert query(copy, "SELECT id, name FROM clients ORDER BY id") == [("c", "Clara"), ("d", "Dora")]
    return len(versions)


@pytest.mark.parametrize(
    ("call", "step"),
    [("pwrite64", 7), ("fdatasync", 1), ("fsync", 1), ("rename", 1), ("unlink", 1), ("ftruncate", 1)],
)
def test_a_migration_killed_at_any_call_leaves_the_old_database_or_a_new_one(
    tmp_path: Path, shapes: dict[int, dict[str, Any]], call: str, step: int
) -> None:
    seen, when, ended = set[int](), 1, False
    while not ended:
        folder = tmp_path / f"{call}-{when}"
        folder.mkdir()
        path = first_database(folder)
        upgrade = [*strace.required_under(call, "signal=KILL", str(when)), sys.executable, "-c", UPGRADE, str(path)]
        done = subprocess.run(upgrade, cwd=ROOT, timeout=60, capture_output=True, text=True)
        ended = done.returncode == 0
        assert ended or done.returncode in (-9, 137), done.stderr
        seen.add(check_whole(path, shapes))
        migrate(path, migrations=EVERY)
        assert check_whole(path, shapes) == len(EVERY)
        when += step
    assert when > 1 + step, "it was never killed"
    assert len(EVERY) in seen


def serve(folder: Path) -> subprocess.CompletedProcess[str]:
    """`reelhook serve` on the database in the folder, for as long as it takes to refuse it."""
    settings = {"DATABASE_URL": f"sqlite:///{folder}/reelhook.db", "STORAGE_URL": f"file:{folder}/media"}
    return subprocess.run(
        [*COMMAND, "serve", "--port", "0"],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("INSERT INTO schema_migrations VALUES (999, 'future', 'x', 1)", "newer than this program"),
        ("UPDATE schema_migrations SET checksum = 'another' WHERE version = 1", "is not what was run on this database"),
    ],
)
def test_a_database_this_program_does_not_understand_is_refused_with_a_sentence_and_left_alone(
    tmp_path: Path, change: str, reason: str
) -> None:
    path = tmp_path / "reelhook.db"
    migrate(path)
    query(path, change)
    before = path.read_bytes()
    refused = serve(tmp_path)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert refused.stderr.startswith("reelhook: DATABASE_URL: ") and reason in refused.stderr
    assert path.read_bytes() == before
    with pytest.raises(MigrationError, match=reason):
        migrate(path)


def test_a_program_of_yesterday_refuses_what_this_one_made(tmp_path: Path) -> None:
    path = first_database(tmp_path)
    migrate(path, migrations=EVERY)
    before = path.read_bytes()
    for count in range(1, len(EVERY)):
        with pytest.raises(MigrationError, match=f"is at version {len(EVERY)}, newer than this program \\({count}\\)"):
            migrate(path, migrations=EVERY[:count])
    assert path.read_bytes() == before
