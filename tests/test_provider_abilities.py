"""A provider may lack each ability: webhooks, a list, a cancel, a file store. Told with the whole service."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import toy_provider
from emulating import Provider, until
from firewall import before
from gateway import Gateway, gateway
from toy_emulator import FILM, KEY, PICTURE
from toy_offered import Both, ask, beside, offer, running
from toy_variants import REGIONAL, build_regional
from workshop import Workshop, working

from backend.providers import over_http
from backend.providers.base import Order

STUCK = {"kind": "stuck"}
HOME = Path(__file__).parent


@pytest.fixture
def both(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    """Both providers, offered."""
    with beside(provider, monkeypatch.setattr) as both:
        yield both


@pytest.fixture
def bench(tmp_path: Path, both: Both) -> Iterator[Workshop]:
    """The service without a worker."""
    with working(tmp_path, both, worker=False) as bench:  # type: ignore[arg-type]
        yield bench


def rows(folder: Path) -> str:
    """All that the database holds, as text."""
    with closing(sqlite3.connect(folder / "reelhook.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return repr([connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names])  # noqa: S608


def let_the_deadline_pass(service: Gateway) -> None:
    """Six minutes in a moment, for creates that nobody knows of."""
    assert service.stop() == 0
    with closing(sqlite3.connect(service.folder / "reelhook.db")) as connection, connection:
        connection.execute("UPDATE generations SET deadline_at = 1, due_at = 1 WHERE status = 'unclear'")
    service.start()


# Without webhooks


@pytest.mark.parametrize(("kind", "model", "type"), [("image", PICTURE, "image/png"), ("video", FILM, "video/mp4")])
def test_what_is_made_comes_by_asking_alone_and_is_fetched_with_the_key(
    tmp_path: Path,
    both: Both,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    model: str,
    type: str,
) -> None:
    heard: list[tuple[str, bytes]] = []
    orders: list[Order] = []
    prepare = toy_provider.Toy.prepare
    monkeypatch.setattr(toy_provider.Toy, "prepare", lambda self, order: orders.append(order) or prepare(self, order))

    def listen(method: str, path: str, body: bytes) -> None:
        heard.append((f"{method} {path.partition('/')[2].partition('/')[0]}", body))

    with before(both.toy.origin) as wall:
        wall.rules.append(listen)
        offer(monkeypatch.setattr, wall.origin)
        with working(tmp_path, both, worker=False) as bench:  # type: ignore[arg-type]
            id = running(bench, kind=kind)
            assert bench.row(id).model == model
            made = both.end(bench, id, "completed")
            assert made["content_type"] == type and made["cost_usd"]["actual"] == made["cost_usd"]["estimated"]
            assert KEY not in rows(tmp_path) and KEY not in json.dumps(made)
            assert id in bench.log() and KEY not in bench.log()
    asked = [what for what, _ in heard]
    assert asked.count("POST jobs") == 1 and asked.count("GET output") == 1
    assert [order.webhook_url for order in orders] == [None]
    assert not any(b"webhook" in body or bench.origin.encode() in body for _, body in heard)


def test_nobody_can_send_a_webhook_in_its_name(bench: Workshop, both: Both) -> None:
    both.toy.spoil(STUCK)
    row = bench.row(running(bench))
    headers = {"webhook-id": "msg", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
    body = json.dumps({"job": row.provider_id, "state": "error"})
    assert bench.http.post(f"/webhooks/toy/{row.id}/{row.nonce}", content=body, headers=headers).status_code == 404
    bench.finished = False


# Without a list


@pytest.mark.parametrize("fault", ["reset_after", "create_500_after", "create_bad_json", "create_hang"])
def test_an_answer_that_was_lost_ends_as_unknown_at_the_deadline(
    bench: Workshop, both: Both, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(over_http, "CREATE_S", 0.5)
    both.toy.spoil({"kind": fault, **({"delay_s": 2.0} if fault == "create_hang" else {})})
    id = ask(bench, prompt="a lost fox")
    bench.submit_next()
    assert bench.stage(id) == "unclear" and bench.cancel(id).status_code == 202
    deadline_at = bench.row(id).deadline_at or 0
    while bench.stage(id) == "unclear":
        assert bench.clock() < deadline_at + 2000
        bench.clock.forward(1)
        bench.look("unclear")
    failed = bench.ended(id, "failed")
    assert deadline_at < (bench.row(id).finished_at or 0) < deadline_at + 2000
    assert failed["error"]["code"] == "submit_unknown" and failed["possibly_charged"]
    assert [create["created"] for create in both.sent("a lost fox")] == [True], "it is sent once"


@pytest.mark.story
def test_a_worker_killed_while_it_submits_never_sends_it_again(tmp_path: Path, both: Both) -> None:
    both.toy.spoil({"kind": "create_hang", "delay_s": 60.0, "match": {"prompt_contains": "a killed fox"}})
    more = {"PYTHONPATH": f"{HOME / 'toy_seam'}:{HOME}", "TOY_ORIGIN": both.toy.origin}
    with gateway(tmp_path, both, **more) as service:  # type: ignore[arg-type]
        id = service.ask(provider="toy", prompt="a killed fox")["id"]
        until(lambda: both.sent("a killed fox"))
        service.kill()
        service.start()
        service.reach(id, "unclear", within_s=45)
        other = service.ask(provider="toy", prompt="another fox")["id"]
        service.ended(other, "completed")
        let_the_deadline_pass(service)
        assert service.ended(id, "failed")["error"]["code"] == "submit_unknown"
        assert [create["created"] for create in both.sent("a killed fox")] == [True]
        assert KEY not in rows(tmp_path) and KEY not in service.log()


# Without a cancel


def test_a_cancel_is_noted_and_what_is_made_all_the_same_is_kept_and_paid(bench: Workshop, both: Both) -> None:
    both.toy.spoil({"kind": "delay", "on": "run", "delay_s": 0.5})
    id = running(bench)
    answer = bench.cancel(id)
    assert answer.status_code == 202 and answer.json()["status"] == "processing"
    assert bench.row(id).cancel_requested_at and not bench.row(id).cancel_sent_at
    assert bench.look("processing") == [id], "it may have ended already"
    assert bench.look("processing") == [], "it is asked about no oftener for that"
    made = both.end(bench, id, "completed")
    assert made["url"] and not made["possibly_charged"] and made["cost_usd"]["actual"] == 0.04
    assert bench.cancel(id).status_code == 409


@pytest.mark.parametrize("canceled", [False, True])
def test_what_does_not_end_is_given_up_as_perhaps_charged(bench: Workshop, both: Both, canceled: bool) -> None:
    both.toy.spoil(STUCK)
    id = running(bench)
    assert not canceled or bench.cancel(id).status_code == 202
    deadline_at = bench.row(id).deadline_at or 0
    bench.clock.forward((deadline_at - bench.clock()) / 1000 - 20)
    bench.look("processing")
    assert bench.stage(id) == "processing"
    bench.clock.forward(21)
    bench.look("processing")
    failed = bench.ended(id, "failed")
    assert failed["error"]["code"] == "timed_out" and failed["possibly_charged"]
    assert len(both.toy.creates) == 1


# With a ref


@pytest.mark.parametrize("stop", [False, True])
def test_what_a_provider_must_be_asked_with_is_kept_over_a_restart(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch, stop: bool
) -> None:
    with beside(provider, monkeypatch.setattr, description=REGIONAL, build=build_regional) as both:
        both.toy.spoil(*[STUCK][: int(stop)])
        with working(tmp_path, both, worker=False) as bench:  # type: ignore[arg-type]
            id = running(bench)
            assert (bench.row(id).provider_ref or {})["region"].startswith("eu-")
            bench.finished = False
        with working(tmp_path, both, worker=False) as bench:  # type: ignore[arg-type]
            if stop:
                assert bench.cancel(id).status_code == 202
                bench.look("processing")
            both.end(bench, id, "canceled" if stop else "completed")
            assert len(both.toy.ledger["cancels"]) == stop


# Two providers at once


@pytest.mark.parametrize("hanging", ["toy", "replicate"])
def test_a_provider_that_hangs_delays_nothing_of_another(
    tmp_path: Path, both: Both, monkeypatch: pytest.MonkeyPatch, hanging: str
) -> None:
    monkeypatch.setattr(over_http, "CREATE_S", 8)
    spoiled = both.toy if hanging == "toy" else both.replicate
    hang = {"kind": "create_hang", "delay_s": 8.0, "match": {"prompt_contains": "hang"}}
    spoiled.spoil(hang, *([{"kind": "webhook_lost", "match": hang["match"]}] if hanging == "replicate" else []))
    other = "replicate" if hanging == "toy" else "toy"
    with working(tmp_path, both, max_in_flight=64) as shop:  # type: ignore[arg-type]
        stuck = shop.ask_many(70, prompt="hang", provider=hanging)
        until(lambda: len(spoiled.ledger["creates"]) == 64)
        ids = shop.ask_many(4, prompt="go", provider=other)
        until(lambda: all(shop.stage(id) not in ("queued", "submitting") for id in ids), 3)
        shop.forward(11)
        for id in ids:
            shop.ended(id, "completed", within_s=6)
        assert shop.stage(stuck[-1]) == "queued"
        shop.finished = False


def test_a_long_queue_for_one_provider_takes_no_turn_of_another(tmp_path: Path, both: Both) -> None:
    both.toy.spoil(STUCK)
    with working(tmp_path, both, max_in_flight=2) as shop:  # type: ignore[arg-type]
        shop.ask_many(30, prompt="queued", provider="toy")
        ids = shop.ask_many(6, prompt="quick", provider="replicate")
        for id in ids:
            shop.ended(id, "completed", within_s=10)
        assert len(both.toy.creates) == 2
        shop.finished = False
