"""The service was off for longer than anything may take: what is there is looked at before it is given up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from emulating import Provider, until
from firewall import Firewall, answer, before
from test_provider_troubles import finish
from workshop import Workshop, working

from backend.steps import queue
from backend.worker import loop as worker

HOUR_S, DAY_S, WEEKEND_S = 3600, 86_400, 60 * 3600
LOST = {"kind": "webhook_lost"}
AWAY = answer(503, "<html>The network is not up yet.</html>")


@pytest.fixture
def wall(provider: Provider) -> Iterator[Firewall]:
    with before(provider.server.origin) as wall:
        yield wall


@pytest.fixture(autouse=True)
def tidy_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given up is given up at once."""
    monkeypatch.setattr(worker, "TIDY_S", 0.1)


@contextmanager
def on_friday(folder: Path, provider: Provider, wall: Firewall) -> Iterator[Workshop]:
    with working(folder, provider, worker=False, webhooks=False, replicate_base_url=f"{wall.origin}/v1") as shop:
        shop.finished = False
        yield shop


@contextmanager
def on_monday(folder: Path, provider: Provider, wall: Firewall) -> Iterator[Workshop]:
    url = f"{wall.origin}/v1"
    with working(folder, provider, webhooks=False, ahead_s=WEEKEND_S, replicate_base_url=url) as shop:
        yield shop


def close(wall: Firewall) -> None:
    """Nothing gets through."""
    wall.rules.append(lambda method, path, body: AWAY if method == "GET" else b"")


def test_what_was_queued_is_sent_and_what_waited_for_it_too(tmp_path: Path, provider: Provider, wall: Firewall) -> None:
    with on_friday(tmp_path, provider, wall) as friday:
        video = friday.ask("video", prompt="kites")
    with on_monday(tmp_path, provider, wall) as monday:
        monday.ended(video["source"]["image_id"], "completed", 60)
        monday.ended(video["id"], "completed", 60)
    assert len(provider.ledger["creates"]) == 2


def test_a_provider_that_cannot_be_reached_at_once_is_waited_for(
    tmp_path: Path, provider: Provider, wall: Firewall
) -> None:
    """The machine is up before its network is."""
    with on_friday(tmp_path, provider, wall) as friday:
        id = friday.ask()["id"]
    wall.rules.append(lambda method, path, body: answer(429, {"detail": "Throttled.", "retry_after": 1}))
    with on_monday(tmp_path, provider, wall) as monday:
        until(lambda: monday.row(id).polls >= 2)
        assert monday.get(id)["status"] == "pending"
        wall.open()
        monday.forward(61)
        monday.ended(id, "completed", 60)


def test_a_prediction_whose_deadline_is_long_over_is_asked_for_before_it_fails(
    tmp_path: Path, provider: Provider, wall: Firewall
) -> None:
    provider.spoil(LOST)
    with on_friday(tmp_path, provider, wall) as friday:
        id = friday.ask()["id"]
        friday.submit_next()
        provider.ended(friday.row(id).provider_id or "")
    close(wall)
    with on_monday(tmp_path, provider, wall) as monday:
        until(lambda: monday.row(id).polls >= 3)
        assert monday.stage(id) == "processing"
        wall.open()
        monday.forward(31)
        monday.ended(id, "completed", 60)


def test_an_unclear_create_is_looked_for_before_it_fails(tmp_path: Path, provider: Provider, wall: Firewall) -> None:
    provider.spoil({"kind": "reset_after"}, LOST)
    with on_friday(tmp_path, provider, wall) as friday:
        id = friday.ask()["id"]
        friday.submit_next()
        assert friday.stage(id) == "unclear"
    close(wall)
    with on_monday(tmp_path, provider, wall) as monday:
        until(lambda: monday.row(id).polls >= 1)
        assert monday.stage(id) == "unclear"
        wall.open()
        monday.forward(121)
        monday.ended(id, "completed", 60)


def test_an_output_that_should_be_gone_is_fetched_while_it_may_be_there(
    tmp_path: Path, provider: Provider, wall: Firewall
) -> None:
    provider.spoil(LOST)
    with on_friday(tmp_path, provider, wall) as friday:
        id = friday.ask()["id"]
        friday.submit_next()
        provider.ended(friday.row(id).provider_id or "")
        friday.clock.forward(11)
        friday.look("processing")
        assert friday.stage(id) == "storing"
    wall.rules.append(lambda method, path, body: b"" if "/v1/" not in path else None)
    with on_monday(tmp_path, provider, wall) as monday:
        until(lambda: monday.row(id).polls >= 2)
        assert monday.stage(id) == "storing"
        wall.open()
        monday.forward(61)
        monday.ended(id, "completed", 60)


def test_a_finished_prediction_that_cannot_be_canceled_any_more_is_kept_after_its_deadline(
    tmp_path: Path, provider: Provider, wall: Firewall
) -> None:
    provider.spoil(LOST)
    wall.stop("/cancel", answer(404, {"detail": "It is not running.", "status": 404}))
    with on_friday(tmp_path, provider, wall) as bench:
        id = bench.ask()["id"]
        bench.submit_next()
        provider.ended(bench.row(id).provider_id or "")
        bench.clock.forward(WEEKEND_S)
        finish(bench, provider, id)
        bench.ended(id, "completed")
    assert not any("/cancel" in path for path in wall.stopped)


def give_up(bench: Workshop) -> int:
    return bench.run(queue.give_up(bench.ctx))


def test_a_request_that_was_tried_for_a_day_is_given_up(bench: Workshop) -> None:
    video = bench.ask("video", prompt="kites")
    image = video["source"]["image_id"]
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.base_url = "http://127.0.0.1:9/v1"
    assert bench.submit_next() == [image] and give_up(bench) == 0
    bench.clock.forward(3 * DAY_S)
    assert give_up(bench) == 0 and bench.stage(image) == "queued"
    assert bench.submit_next() == [image]
    assert give_up(bench) == 1
    failed = bench.ended(image, "failed")
    assert failed["error"]["code"] == "provider_unavailable" and not failed["possibly_charged"]
    assert bench.ended(video["id"], "failed")["error"]["code"] == "source_failed"


def test_nothing_is_given_up_that_a_worker_has_in_hand_or_before_the_worker_was_awake_for_an_hour(
    bench: Workshop,
) -> None:

    id = bench.ask()["id"]
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.base_url = "http://127.0.0.1:9/v1"
    bench.submit_next()
    bench.clock.forward(3 * DAY_S)
    bench.ctx.awake_since = bench.clock()
    bench.submit_next()
    assert give_up(bench) == 0
    bench.clock.forward(HOUR_S + 1)
    bench.run(queue.claim(bench.ctx, "another", ("image",), 1, 30_000))
    assert give_up(bench) == 0 and bench.stage(id) == "submitting"
    bench.finished = False


def test_a_request_to_a_provider_that_is_not_offered_any_more_is_given_up_after_a_day(bench: Workshop) -> None:
    id = bench.ask()["id"]
    bench.ctx.providers = {}
    assert bench.submit_next() == [] and give_up(bench) == 0
    bench.clock.forward(DAY_S + 1)
    assert give_up(bench) == 1
    assert bench.ended(id, "failed")["error"]["code"] == "provider_unavailable"


def test_a_machine_that_slept_was_not_awake(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BEAT_S", 0.05)
    with working(tmp_path, provider) as shop:
        began = until(lambda: shop.ctx.awake_since)
        for jump_s in (WEEKEND_S, -HOUR_S):
            shop.forward(jump_s)
            until(lambda: abs(shop.ctx.awake_since - shop.clock()) < 30_000)
        assert shop.ctx.awake_since != began
