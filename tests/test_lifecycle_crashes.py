"""The service is killed in the middle of everything; after the next start each request has one end, paid once."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from auditor import creates_of
from emulating import TINY, Provider, emulating, png, until
from face import FINAL
from gateway import Gateway, gateway

pytestmark = pytest.mark.story

PATIENT = replace(TINY, webhook_delays_s=(0.2,) * 40)  # a restart takes a second or two


@pytest.fixture
def provider() -> Iterator[Provider]:
    with emulating(PATIENT) as provider:
        yield provider


@pytest.fixture
def service(tmp_path: Path, provider: Provider) -> Iterator[Gateway]:
    with gateway(tmp_path, provider) as service:
        yield service


def _accept(service: Gateway, ids: list[str]) -> list[str]:
    service.accepted += ids
    return ids


def _all_complete(service: Gateway, ids: list[str], within_s: float = 30) -> None:
    for id in ids:
        service.ended(id, "completed", within_s)


def _let_the_deadline_pass(service: Gateway) -> None:
    """For creates that nobody knows of: a quarter of an hour in a moment."""
    assert service.stop() == 0
    with closing(sqlite3.connect(service.folder / "reelhook.db")) as connection, connection:
        connection.execute("UPDATE generations SET deadline_at = 1, due_at = 1 WHERE status = 'unclear'")
    service.start()


def _is_settled(service: Gateway, provider: Provider, id: str) -> bool:
    """Ended, or killed between the claim and the create; or waiting for one that was."""
    now = service.get(id)
    if now["stage"] == "waiting":
        return _is_settled(service, provider, now["source"]["image_id"])
    unknown = now["stage"] == "unclear" and not any(made["created"] for made in creates_of(provider.ledger, id))
    return unknown or now["status"] in FINAL


def _all_end(service: Gateway, provider: Provider, ids: list[str]) -> None:
    """Completed, all but those that were claimed and, at the kill, not yet sent: these end as unknown."""
    until(lambda: all(_is_settled(service, provider, id) for id in ids), 40)
    if any(service.stage(id) in ("unclear", "waiting") for id in ids):
        _let_the_deadline_pass(service)
    for id in ids:
        ended = service.ended(id)
        never_arrived = not any(create["created"] for create in creates_of(provider.ledger, id))
        assert ended["status"] == "completed" or never_arrived, ended


def test_killed_while_submitting_it_finds_what_it_sent_and_sends_nothing_twice(
    service: Gateway, provider: Provider
) -> None:
    provider.spoil({"kind": "create_hang", "delay_s": 5.0}, {"kind": "webhook_lost"})
    ids = _accept(service, service.ask_many(3))
    until(lambda: sum(create["created"] for create in provider.ledger["creates"]) == 3)
    service.restart()
    _all_complete(service, ids)
    assert all(len(creates_of(provider.ledger, id)) == 1 for id in ids) and provider.ledger["lists"] >= 1


def test_killed_while_the_provider_works_it_hears_of_the_end(service: Gateway, provider: Provider) -> None:
    provider.spoil({"kind": "delay", "on": "run", "delay_s": 1.0})
    ids = _accept(service, [*service.ask_many(3), service.ask("video", prompt="kites")["id"]])
    for id in ids[:3]:
        service.reach(id, "processing")
    service.restart()
    _all_end(service, provider, ids)


def test_killed_while_it_ended_without_a_word_it_asks(service: Gateway, provider: Provider) -> None:
    provider.spoil({"kind": "webhook_lost"})
    ids = _accept(service, service.ask_many(2))
    for id in ids:
        service.reach(id, "processing")
    service.restart()
    _all_complete(service, ids)
    assert provider.ledger["gets"] >= 2


def test_killed_while_downloading_it_fetches_again_and_leaves_no_half_file(tmp_path: Path) -> None:
    spool = tmp_path / "media" / "tmp"
    large = replace(PATIENT, output_bytes=6_000_000)
    with emulating(large) as provider, gateway(tmp_path, provider) as service:
        provider.spoil({"kind": "output_slow", "bytes_per_s": 2_000_000})
        ids = _accept(service, [service.ask()["id"], service.ask("video", asset_id=service.upload(png()))["id"]])
        until(lambda: len(list(spool.iterdir())) == 2)
        service.kill()
        assert len(list(spool.iterdir())) == 2
        provider.spoil()
        service.start()
        _all_complete(service, ids)
        assert list(spool.iterdir()) == []


def test_killed_right_after_a_webhook_was_taken_it_still_believes_it(service: Gateway, provider: Provider) -> None:
    provider.spoil({"kind": "delay", "on": "run", "delay_s": 0.3})
    (id,) = _accept(service, service.ask_many(1))

    def final_webhook_was_taken() -> bool:
        return any(one["event"] == "completed" and one["status"] == 200 for one in provider.ledger["webhooks"])

    until(final_webhook_was_taken)
    service.restart()
    _all_complete(service, [id])
    assert provider.ledger["gets"] == 0


def test_a_stop_finishes_what_is_in_hand_and_exits_with_0(service: Gateway, provider: Provider) -> None:
    provider.spoil({"kind": "delay", "on": "create", "delay_s": 1.0}, {"kind": "output_slow", "bytes_per_s": 80_000})
    ids = _accept(service, service.ask_many(2))
    until(lambda: len(provider.ledger["creates"]) == 2)
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 8
    with closing(sqlite3.connect(service.folder / "reelhook.db")) as connection:
        rows = connection.execute("SELECT status, lease_owner FROM generations").fetchall()
        assert {status for status, _ in rows} <= {"processing", "storing", "completed"}, rows
        assert connection.execute("SELECT COUNT(*) FROM workers").fetchone() == (0,)
    provider.spoil()
    service.start()
    _all_complete(service, ids)
    assert len(provider.ledger["creates"]) == 2


def test_a_stop_lets_a_download_come_to_its_end(service: Gateway, provider: Provider) -> None:
    provider.spoil({"kind": "output_slow", "bytes_per_s": 60_000})
    (id,) = _accept(service, service.ask_many(1))
    until(lambda: provider.ledger["downloads"] == 1)
    assert service.stop() == 0
    with closing(sqlite3.connect(service.folder / "reelhook.db")) as connection:
        assert connection.execute("SELECT status FROM generations WHERE id = ?", (id,)).fetchone() == ("completed",)


def test_a_stop_with_nothing_to_do_is_quick(service: Gateway) -> None:
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_two_signals_are_no_crash(service: Gateway, provider: Provider, number: int) -> None:
    ids = _accept(service, service.ask_many(5))
    assert service.process is not None
    os.kill(service.process.pid, number)
    os.kill(service.process.pid, number)
    assert service.process.wait(25) == 0
    service.start()
    _all_complete(service, ids)


def test_a_second_service_on_the_same_database_is_refused_with_a_sentence(service: Gateway) -> None:
    before = len(service.log())
    other = service.spawn()
    assert other.wait(20) != 0
    told = service.log()[before:]
    assert "is used by another Reelhook process" in told and "Traceback" not in told
    assert service.http.get("/healthz").status_code == 200
