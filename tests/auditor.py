"""What must hold after every story, whatever went wrong in it: nothing lost, nothing paid twice, nothing half."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FINAL = ("completed", "failed", "canceled")
STOPPING_S = 30  # no stop takes longer
LOST, PAID_TWICE, STUCK = "lost", "paid twice", "stuck"
UNTRUE, BACKWARDS, DAMAGED, MISCOUNTED = "untrue", "backwards", "damaged", "miscounted"

# From where a status may be entered: written out here again, so that a wrong table in the product is noticed.
FORWARD = {
    "queued": {"waiting", "submitting"},
    "submitting": {"queued"},
    "unclear": {"submitting", "queued", "waiting"},  # the last two by a restored backup
    "processing": {"submitting", "unclear"},
    "storing": {"submitting", "unclear", "processing"},
    "completed": {"storing"},
    "failed": {"waiting", "queued", "submitting", "unclear", "processing", "storing"},
    "canceled": {"waiting", "queued", "submitting", "unclear", "processing"},
}
WITNESS = """
CREATE TABLE IF NOT EXISTS witness (at INTEGER PRIMARY KEY, subject TEXT, id TEXT, was TEXT, now TEXT);
CREATE TRIGGER IF NOT EXISTS witness_moves AFTER UPDATE OF status ON generations WHEN old.status <> new.status
BEGIN INSERT INTO witness (subject, id, was, now) VALUES ('status', new.id, old.status, new.status); END;
CREATE TRIGGER IF NOT EXISTS witness_events AFTER UPDATE ON events
BEGIN INSERT INTO witness (subject, id, was, now) VALUES ('event', old.id, old.type, new.type); END;
CREATE TRIGGER IF NOT EXISTS witness_bills AFTER DELETE ON generations
BEGIN INSERT INTO witness (subject, id, was, now) VALUES ('bill', old.id, old.status,
  CASE WHEN old.status = 'completed' OR old.possibly_charged = 1 THEN 'counted' ELSE 'free' END); END;
CREATE TRIGGER IF NOT EXISTS witness_deletes AFTER DELETE ON generations
BEGIN INSERT INTO witness (subject, id, was, now) VALUES ('deleted', old.id, old.status, 'deleted'); END;
"""
Row = sqlite3.Row


@dataclass(frozen=True)
class Finding:
    """Something that must never be: of what sort, and of which generation or file."""

    sort: str
    text: str


def audit(folder: Path, ledger: dict[str, Any], accepted: Iterable[str] = (), *, finished: bool = True) -> None:
    """Fail with everything that is wrong in the database and the storage in `folder`."""
    wrong = findings(folder, ledger, accepted, finished=finished)
    assert not wrong, "\n".join(f"{one.sort}: {one.text}" for one in wrong)


def findings(
    folder: Path, ledger: dict[str, Any], accepted: Iterable[str] = (), *, finished: bool = True
) -> list[Finding]:
    """What is wrong: the database and the storage in `folder`, compared with the provider's ledger."""
    with closing(sqlite3.connect(f"file:{folder}/reelhook.db?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        found = list(_of_the_database(connection))
        rows = {row["id"]: row for row in connection.execute("SELECT * FROM generations")}
        assets = connection.execute("SELECT * FROM assets").fetchall()
        found += [Finding(LOST, f"{id} was accepted and is not known") for id in accepted if id not in rows]
        found += _of_creates(rows, _deleted(connection), ledger)
        found += _of_bills(rows, connection, ledger)
        found += _of_events(rows, connection.execute("SELECT * FROM events ORDER BY created_at, id").fetchall())
        found += _of_moves(connection)
        found += _of_letters(connection)
        found += of_money(connection)
        found += of_holdings(connection)
        if finished:
            found += _of_ends(rows, connection)
            found += _of_results(rows, ledger)
            found += _of_files(folder / "media", rows, assets)
    return found


def witness(folder: Path) -> None:
    """Have the database itself write down each move from now on, across restarts."""
    with closing(sqlite3.connect(folder / "reelhook.db", timeout=10)) as connection:
        connection.executescript(WITNESS)


def creates_of(ledger: dict[str, Any], id: str) -> list[dict[str, Any]]:
    """The creates that were sent for one generation, which its webhook URL names."""
    return [create for create in ledger["creates"] if f"/{id}/" in (create["webhook"] or "")]


def _of_the_database(connection: sqlite3.Connection) -> Iterator[Finding]:
    for (verdict,) in connection.execute("PRAGMA integrity_check"):
        if verdict != "ok":
            yield Finding(DAMAGED, f"the database: {verdict}")
    for row in connection.execute("PRAGMA foreign_key_check"):
        yield Finding(DAMAGED, f"a foreign key of {row[0]} leads nowhere")


def _deleted(connection: sqlite3.Connection) -> set[str]:
    """The generations that were deleted; when there was a witness."""
    if not _has_witness(connection):
        return set()
    return {row["id"] for row in connection.execute("SELECT id FROM witness WHERE subject = 'deleted'")}


def _has_witness(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'witness'").fetchone())


def _of_creates(rows: dict[str, Row], deleted: set[str], ledger: dict[str, Any]) -> Iterator[Finding]:
    """At most one prediction a generation, its own, and nothing sent again after an answer nobody saw."""
    made = [create for create in ledger["creates"] if create["created"]]
    if len(made) > len(rows) + len(deleted):
        yield Finding(PAID_TWICE, f"{len(made)} predictions for {len(rows)} generations")
    for id in {*rows, *deleted}:
        sent = creates_of(ledger, id)
        for earlier in sent[:-1]:
            if earlier["created"] or not earlier["answered"]:
                yield Finding(PAID_TWICE, f"{id} was sent again after {earlier}")
    asked_by = {create["prediction_id"]: create["webhook"] for create in made}
    owners = defaultdict(list)
    for row in rows.values():
        if row["provider_id"]:
            owners[row["account"] or row["provider"], row["provider_id"]].append(row["id"])
            if f"/{row['id']}/" not in (asked_by.get(row["provider_id"]) or f"/{row['id']}/"):
                yield Finding(UNTRUE, f"{row['id']} has {row['provider_id']}, which another asked for")
    for (_, prediction), ids in owners.items():
        if len(ids) > 1:
            yield Finding(UNTRUE, f"one prediction {prediction}, several generations {ids}")


def _of_events(rows: dict[str, Row], events: list[Row]) -> Iterator[Finding]:
    """One event for the final status, none after it, and none of another end."""
    told = defaultdict(list)
    for event in events:
        told[event["generation_id"]].append(event["type"].removeprefix("generation."))
    for id, row in rows.items():
        ends = [type for type in told[id] if type in FINAL]
        if ends != ([row["status"]] if row["status"] in FINAL else []):
            yield Finding(UNTRUE, f"{id} is {row['status']}, told {ends}")
        if unknown := set(told[id]) - set(ends) - {"processing"}:
            yield Finding(UNTRUE, f"{id} was told {unknown}")


def _of_moves(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Nothing ever went back, and no event was changed; when there was a witness."""
    if not _has_witness(connection):
        return
    for row in connection.execute("SELECT * FROM witness WHERE subject IN ('status', 'event') ORDER BY at"):
        if row["subject"] == "event" or row["was"] not in FORWARD.get(row["now"], set()):
            yield Finding(BACKWARDS, f"{row['subject']} {row['id']} went from {row['was']} to {row['now']}")


# What each client's row in holdings must be: the same columns, added up from the rows themselves.
HELD = """
SELECT client_id, SUM(file_bytes), SUM(text_bytes), SUM(generations), SUM(assets), SUM(campaigns), SUM(endpoints),
  SUM(keys), SUM(told), SUM(heard), SUM(answers) FROM (
  SELECT client_id, file_bytes, text_bytes, 1 generations, 0 assets, 0 campaigns, 0 endpoints, 0 keys, 0 told, 0 heard,
    0 answers FROM generations
  UNION ALL SELECT client_id, bytes, 0, 0, 1, 0, 0, 0, 0, 0, 0 FROM assets
  UNION ALL SELECT client_id, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0 FROM campaigns
  UNION ALL SELECT client_id, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0 FROM webhook_endpoints
  UNION ALL SELECT client_id, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0 FROM api_keys WHERE client_id IS NOT NULL
  UNION ALL SELECT client_id, 0, text_bytes, 0, 0, 0, 0, 0, 1, 0, 0 FROM webhook_deliveries
  UNION ALL SELECT (SELECT client_id FROM generations WHERE id = generation_id), 0, text_bytes, 0, 0, 0, 0, 0, 0, 1, 0
    FROM deliveries
  UNION ALL SELECT SUBSTR(scope, 8), 0, text_bytes, 0, 0, 0, 0, 0, 0, 0, 1
    FROM idempotency_keys WHERE scope LIKE 'client:%'
) GROUP BY client_id"""
# The columns that are added up there, against what they were counted from.
SIZES = {
    "the files of {}": """SELECT id, file_bytes, CASE WHEN status = 'completed' THEN bytes ELSE 0 END AS least
      FROM generations WHERE file_bytes < least""",
    "the answers to {}": """SELECT id, text_bytes, (SELECT COALESCE(SUM(LENGTH(CAST(answer AS BLOB))), 0)
      FROM webhook_attempts WHERE delivery_id = id) AS kept FROM webhook_deliveries WHERE text_bytes <> kept""",
    "the answer kept for {}": """SELECT key, text_bytes FROM idempotency_keys
      WHERE text_bytes <> COALESCE(LENGTH(CAST(body AS BLOB)), 0)""",
    "the request of {}": """SELECT id, text_bytes FROM generations
      WHERE text_bytes < COALESCE(LENGTH(CAST(prompt AS BLOB)), 0)""",
}


def of_holdings(connection: sqlite3.Connection) -> Iterator[Finding]:
    """What is kept for each client is what its rows add up to."""
    counted = {row[0]: list(row)[1:] for row in connection.execute(HELD)}
    names = "client_id, file_bytes, text_bytes, generations, assets, campaigns, endpoints, keys, told, heard, answers"
    for client_id, *held in connection.execute(f"SELECT {names} FROM holdings"):  # noqa: S608
        if held != (rows := counted.pop(client_id, [0] * 10)):
            yield Finding(MISCOUNTED, f"{held} is held for {client_id}, and its rows add up to {rows}")
    for client_id, rows in counted.items():
        yield Finding(MISCOUNTED, f"nothing is held for {client_id}, and its rows add up to {rows}")
    for what, sql in SIZES.items():
        for row in connection.execute(sql):
            yield Finding(MISCOUNTED, f"{what.format(row[0])}: {tuple(row)[1:]}")


def of_money(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Every balance and every day is what the rows add up to; what was deleted is spent all the same."""
    reserved, spent, unfinished = Counter[str](), Counter[str](), Counter[str]()
    days: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for row in connection.execute("SELECT * FROM generations"):
        estimated, charged = row["cost_estimated_micros"] or 0, _charged(row)
        for owner in (row["client_id"], row["campaign_id"]):
            if row["status"] in FINAL:
                spent[owner] += charged
            else:
                reserved[owner] += estimated
                unfinished[owner] += 1
        if row["status"] in FINAL:
            where = (row["client_id"], row["campaign_id"], row["created_at"] // 86_400_000, row["kind"])
            where += (row["provider"], row["model"], row["key_id"] or "", row["status"])
            files = _files(row) if row["status"] == "completed" else []
            media_ms = round(sum(one["duration_s"] or 0 for one in files) * 1000 + 0.001)
            more = (1, media_ms, sum(one["bytes"] for one in files), estimated, charged)
            days[where] = [was + one for was, one in zip(days[where], more, strict=True)]
    kept = {tuple(row)[:8]: list(row)[9:] for row in connection.execute("SELECT * FROM usage_days WHERE deleted = 0")}
    for where in kept.keys() | days.keys():
        if kept.get(where, [0] * 5) != days.get(where, [0] * 5):
            yield Finding(MISCOUNTED, f"{where} is {kept.get(where)} and adds up to {days.get(where)}")
    for row in connection.execute("SELECT * FROM usage_days WHERE deleted = 1"):
        spent.update({row["client_id"]: row["actual_micros"], row["campaign_id"]: row["actual_micros"]})
    kept_balances = connection.execute("SELECT owner_id, reserved_micros, settled_micros, unfinished FROM balances")
    for owner, *balance in kept_balances:
        if balance != [reserved.pop(owner, 0), spent.pop(owner, 0), unfinished.pop(owner, 0)]:
            yield Finding(MISCOUNTED, f"the balance of {owner} is {balance}: not what its rows add up to")
    there = {row["id"] for row in connection.execute("SELECT id FROM campaigns UNION ALL SELECT id FROM clients")}
    for owner in (reserved.keys() | spent.keys() | unfinished.keys()) & there:  # who is gone has no balance any more
        yield Finding(MISCOUNTED, f"{owner} has no balance")


def _of_bills(rows: dict[str, Row], connection: sqlite3.Connection, ledger: dict[str, Any]) -> Iterator[Finding]:
    """Whatever the provider billed is counted, also of what was deleted; what it said never began is not."""
    ended = {end["prediction_id"]: end for end in ledger["ends"]}
    free = {id for id, row in rows.items() if row["status"] in FINAL and not _is_counted(row)}
    if _has_witness(connection):
        free |= {
            row["id"] for row in connection.execute("SELECT id FROM witness WHERE subject = 'bill' AND now = 'free'")
        }
    asked = {row["provider_id"]: id for id, row in rows.items() if row["provider_id"]}
    asked |= {one["prediction_id"]: id for id in free for one in creates_of(ledger, id) if one["created"]}
    for prediction, end in ended.items():
        id = asked.get(prediction)
        if end["billed"] and id in free:
            yield Finding(UNTRUE, f"{id} is free, and the provider billed {end}")
        row = rows.get(id or "")
        never_ran = end["status"] in ("canceled", "aborted") and not end["began"]
        if row and row["status"] == "canceled" and row["possibly_charged"] and never_ran:
            yield Finding(UNTRUE, f"{id} counts, and the provider said that it never began")


def _is_counted(row: Row) -> bool:
    return row["status"] == "completed" or bool(row["possibly_charged"])


def _charged(row: Row) -> int:
    """What it counts for, said here again: what was billed, else the estimate of what was or may have been."""
    if row["cost_actual_micros"] is not None:
        return int(row["cost_actual_micros"])
    return int(row["cost_estimated_micros"] or 0) if _is_counted(row) else 0


def _of_letters(connection: sqlite3.Connection) -> Iterator[Finding]:
    """What happened while an endpoint listened has a delivery, told or still to be told."""
    untold = connection.execute(
        """
        SELECT events.id AS event, webhook_endpoints.id AS endpoint FROM events JOIN webhook_endpoints
        ON webhook_endpoints.client_id = events.client_id AND webhook_endpoints.created_at < events.created_at
        WHERE disabled_at IS NULL AND deleted_at IS NULL
        AND (webhook_endpoints.events = '[]' OR INSTR(webhook_endpoints.events, '"' || events.type || '"'))
        AND NOT EXISTS (SELECT 1 FROM webhook_deliveries
                        WHERE event_id = events.id AND endpoint_id = webhook_endpoints.id)
        """
    )
    for row in untold:
        yield Finding(LOST, f"event {row['event']} was never to be told to endpoint {row['endpoint']}")


def _of_ends(rows: dict[str, Row], connection: sqlite3.Connection) -> Iterator[Finding]:
    for id, row in rows.items():
        if row["status"] not in FINAL:
            yield Finding(STUCK, f"{id} is still {row['status']}")
        if row["lease_owner"] is not None:
            yield Finding(STUCK, f"{id} is still held by {row['lease_owner']}")
    for row in connection.execute("SELECT source_id FROM releases"):
        yield Finding(STUCK, f"{row['source_id']} has ended, and some still wait for it")
    for row in connection.execute("SELECT id FROM webhook_deliveries WHERE lease_owner IS NOT NULL"):
        yield Finding(STUCK, f"webhook delivery {row['id']} is still held by somebody")
    # One that came while the service stopped, about what has ended, is looked at after the next start.
    unhandled = """SELECT id FROM deliveries WHERE handled_at IS NULL AND (received_at < ? OR generation_id IN (
      SELECT id FROM generations WHERE finished_at IS NULL))"""
    for row in connection.execute(unhandled, (int((time.time() - STOPPING_S) * 1000),)):
        yield Finding(STUCK, f"delivery {row['id']} was never handled")


def _of_results(rows: dict[str, Row], ledger: dict[str, Any]) -> Iterator[Finding]:
    """A success that was paid for is stored with the provider's own bytes, or the row says what became of it."""
    ends = {end["prediction_id"]: end for end in ledger["ends"] if end["status"] == "succeeded"}
    asked = {id: create["prediction_id"] for id in rows for create in creates_of(ledger, id) if create["created"]}
    heard_of = {create["prediction_id"] for create in ledger["creates"]}  # another emulator has another ledger
    for id, row in rows.items():
        end = ends.get(row["provider_id"] or asked.get(id, ""))
        if end is None and row["status"] == "completed" and row["provider_id"] in heard_of:
            yield Finding(UNTRUE, f"{id} is completed, and the provider never said so")
        elif end and row["status"] == "completed" and not _has_all(row, end, ledger.get("handed", {})):
            yield Finding(LOST, f"{id} has other bytes than the provider made")
        elif end and row["error_code"] == "submit_unknown" and not row["possibly_charged"]:
            yield Finding(LOST, f"{id} was paid for and says that it was not")


def _files(row: Row) -> list[dict[str, Any]]:
    """The stored files of a completed row, its own first."""
    names = ("file_name", "bytes", "sha256", "duration_s")
    others = [one for one in json.loads(row["more_files"] or "[]") if "file_name" in one]
    return [{name: row[name] for name in names}, *({name: one.get(name) for name in names} for one in others)]


def _has_all(row: Row, end: dict[str, Any], handed: dict[str, list[str]]) -> bool:
    """Each file the provider made is stored, or the row says that it is missing, or other bytes came as whole ones."""
    made = end.get("files") or [end["sha256"]]
    missing = [one for one in json.loads(row["more_files"] or "[]") if one["state"] == "missing"]
    stored = {one["sha256"] for one in _files(row)}
    instead = stored & set(handed.get(end["prediction_id"], []))
    return stored <= {*made, *instead} and len({*made} - stored) <= len(missing) + len(instead)


def _of_files(media: Path, rows: dict[str, Row], assets: list[Row]) -> Iterator[Finding]:
    """Every file that a completed row lists, with its bytes; frames beside their videos; nothing else."""
    files = {path.name: path for path in media.rglob("*") if path.is_file()}
    completed = [row for row in rows.values() if row["status"] == "completed"]
    for one in [*(one for row in completed for one in _files(row)), *assets]:
        path = files.pop(one["file_name"], None)
        content = path.read_bytes() if path else b""
        if (len(content), hashlib.sha256(content).hexdigest()) != (one["bytes"], one["sha256"]):
            yield Finding(LOST, f"the bytes of {one['file_name']} are {'not the same' if path else 'not there'}")
    for row in completed:
        poster = files.pop(row["poster_name"], None)
        is_due = row["width"] is not None  # of what could be read and has pictures
        if is_due != (row["poster_name"] is not None) or (is_due and (poster is None or not poster.stat().st_size)):
            yield Finding(LOST, f"the poster of {row['id']} is not there")
    films = tuple(row["id"] for row in [*completed, *assets] if row["kind"] == "video")
    for name in files:
        if not (films and name.startswith(films)):
            yield Finding(DAMAGED, f"no row names the file {name}")
