"""A deletion that is cut off by kill -9 goes on after the start, until neither a row nor a file is left."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from auditor import witness
from emulating import Provider, until
from gateway import Gateway, gateway

from backend.context import now_ms
from backend.core import filing
from backend.core.ids import new_id
from backend.storage import folder_of

pytestmark = pytest.mark.story

CLONES = 700


@pytest.fixture
def service(tmp_path: Path, provider: Provider) -> Iterator[Gateway]:
    with gateway(tmp_path, provider) as service:
        witness(tmp_path)
        yield service


def query(service: Gateway, sql: str) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(service.folder / "reelhook.db", timeout=10)) as connection, connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(sql).fetchall()


def rows(service: Gateway, campaign: str) -> int:
    return int(query(service, f"SELECT COUNT(*) AS n FROM generations WHERE campaign_id = '{campaign}'")[0]["n"])  # noqa: S608


def files(service: Gateway) -> int:
    return sum(len(names) for _, _, names in os.walk(service.folder / "media"))


def filled(service: Gateway, count: int = CLONES) -> str:
    """A campaign with a video, its image, and so many copies of both with files of their own; frames too."""
    own, service.campaign_id = service.campaign_id, service.campaign("full")
    video = service.ended(service.ask("video")["id"], "completed")
    assert service.stop() == 0
    for template in (video["id"], video["source"]["image_id"]):
        _clone(service, template, count // 2)
    service.start()
    full, service.campaign_id = service.campaign_id, own
    return full


def _clone(service: Gateway, template: str, count: int) -> None:
    media = service.folder / "media"
    with closing(sqlite3.connect(service.folder / "reelhook.db")) as connection, connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM generations WHERE id = ?", (template,)).fetchone())
        sql = f"INSERT INTO generations ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"  # noqa: S608
        for _ in range(count):
            id = new_id(now_ms())
            names = {name: row[name].replace(template, id) for name in ("file_name", "poster_name")}
            connection.execute(sql, tuple((row | names | {"id": id, "provider_id": None}).values()))
            frames = [filing.frame(id, which) for which in filing.FRAMES if row["kind"] == "video"]
            source = media / folder_of(row["file_name"]) / row["file_name"]
            for name in (*names.values(), *frames):
                target = media / folder_of(name) / name
                target.parent.mkdir(exist_ok=True)
                target.hardlink_to(source)
        _count(connection, row, count)


def _count(connection: sqlite3.Connection, row: dict[str, Any], count: int) -> None:
    """What was not made by the service was not counted by it."""
    connection.execute(
        """
        UPDATE usage_days SET generations = generations * :times, media_ms = media_ms * :times, bytes = bytes * :times,
          estimated_micros = estimated_micros * :times, actual_micros = actual_micros * :times
        WHERE campaign_id = :campaign_id AND kind = :kind
        """,
        {"times": count + 1, "campaign_id": row["campaign_id"], "kind": row["kind"]},
    )
    spent = {"spent": count * row["cost_actual_micros"], "campaign": row["campaign_id"], "client": row["client_id"]}
    connection.execute(
        "UPDATE balances SET settled_micros = settled_micros + :spent WHERE owner_id IN (:campaign, :client)", spent
    )
    more = {"client": row["client_id"], "count": count, "files": row["file_bytes"], "texts": row["text_bytes"]}
    connection.execute(
        """
        UPDATE holdings SET generations = generations + :count, file_bytes = file_bytes + :count * :files,
          text_bytes = text_bytes + :count * :texts WHERE client_id = :client
        """,
        more,
    )


def killed_when(service: Gateway, smaller: Callable[[], int]) -> int:
    """Start it, and kill it as soon as there is less than before; what was left then."""
    before = smaller()
    service.process = service.spawn()
    until(lambda: smaller() < before, 30)
    service.kill()
    return smaller()


def test_a_deletion_that_is_killed_again_and_again_leaves_nothing(service: Gateway) -> None:
    kept = service.ended(service.ask()["id"], "completed")
    full = filled(service)
    many = files(service)
    assert many > 3 * CLONES - 10 and rows(service, full) == CLONES + 2
    assert service.http.delete(f"/api/v2/campaigns/{full}").status_code == 204
    service.kill()
    left = [killed_when(service, lambda: rows(service, full)) for _ in range(3)]
    assert min(left[:2]) > 0, "it was over before it could be killed"
    left += [killed_when(service, lambda: files(service)) for _ in range(4)]
    assert min(left[3:5]) > 2, "it was over before it could be killed"
    service.start()
    assert service.http.delete(f"/api/v2/campaigns/{full}").status_code == 404
    until(lambda: files(service) == 2 and not query(service, "SELECT file_name FROM trash LIMIT 1"), 30)
    assert rows(service, full) == 0
    assert query(service, f"SELECT id FROM campaigns WHERE id = '{full}'") == []  # noqa: S608
    assert service.http.get(kept["url"]).status_code == 200
    assert "storage_not_swept" not in service.log()


def test_what_is_made_while_much_is_deleted_is_made_as_ever(service: Gateway) -> None:
    before = service.ask_many(6)
    for id in before:
        service.ended(id, "completed")
    full = filled(service)
    assert service.http.delete(f"/api/v2/campaigns/{full}").status_code == 204
    service.restart()
    made = []
    for id in before:
        made += service.ask_many(3)
        assert service.http.delete(f"/api/v2/generations/{id}").status_code == 204
        assert service.http.delete(f"/api/v2/generations/{id}").status_code == 404
    for id in made:
        url = service.ended(id, "completed")["url"]
        assert service.http.get(url).status_code == 200
    until(lambda: rows(service, full) == 0)
    service.restart()
    until(lambda: files(service) == 2 * len(made) and not query(service, "SELECT file_name FROM trash LIMIT 1"), 30)
