"""Webhooks: what the provider signed is believed once; everything else changes nothing."""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from auditor import creates_of
from emulating import Provider, until
from workshop import ME, Workshop

from backend.core.outcomes import Outcome
from backend.db import generations
from backend.emulator import WEBHOOK_SECRET
from backend.providers import signatures
from backend.steps import outcomes, queue, submit
from backend.worker import LEASE_MS

SECRET = signatures.read_secret(WEBHOOK_SECRET)
LOST = {"kind": "webhook_lost"}
SLOW = {"kind": "delay", "on": "run", "delay_s": 0.6}


def tell(
    shop: Workshop,
    id: str,
    prediction: dict[str, Any],
    *,
    webhook_id: str = "msg_of_the_test",
    secret: bytes = SECRET,
    nonce: str | None = None,
) -> httpx.Response:
    """A webhook about a prediction, sent to a generation's URL."""
    body, at = json.dumps(prediction).encode(), int(time.time())
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at),
        "webhook-signature": signatures.sign(secret, webhook_id, at, body),
    }
    path = f"/webhooks/replicate/{id}/{nonce or shop.row(id).nonce}"
    return shop.http.post(path, content=body, headers=headers)


def submitted(bench: Workshop, provider: Provider, **wanted: Any) -> tuple[str, dict[str, Any]]:
    """A generation whose webhooks get lost, and its prediction when that has ended."""
    id = bench.ask(**wanted)["id"]
    bench.submit_next()
    return id, provider.ended(bench.row(id).provider_id or "")


def believe(shop: Workshop) -> int:
    from backend.steps import receive

    return shop.run(receive.believe(shop.ctx))


def deliveries(shop: Workshop, id: str) -> list[Any]:
    return shop.run(shop.ctx.db.read(lambda tx: tx.all("SELECT note FROM deliveries WHERE generation_id = :id", id=id)))


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "webhook_duplicate", "count": 5},
        {"kind": "webhook_out_of_order"},
        {"kind": "webhook_late", "delay_s": 0.3, "events": ["start"]},
        {"kind": "webhook_lost", "events": ["start"]},
        {"kind": "unknown_status", "status": "resuming"},
    ],
    ids=lambda fault: str(fault["kind"]),
)
def test_however_its_webhooks_come_it_completes_once(shop: Workshop, provider: Provider, fault: dict[str, Any]) -> None:
    provider.spoil(fault)
    id = shop.ask()["id"]
    shop.ended(id, "completed")
    assert len(creates_of(provider.ledger, id)) == 1 and provider.ledger["downloads"] == 1
    assert provider.ledger["gets"] == 0


@pytest.mark.parametrize("fault", [LOST, {"kind": "webhook_bad_signature"}], ids=lambda fault: str(fault["kind"]))
def test_a_webhook_that_never_comes_costs_time_and_not_the_result(
    shop: Workshop, provider: Provider, fault: dict[str, Any]
) -> None:
    provider.spoil(fault)
    id = shop.ask()["id"]
    shop.reach(id, "processing")
    until(lambda: provider.ledger["predictions"].get("succeeded"))
    assert shop.stage(id) == "processing"
    shop.forward(11)
    shop.ended(id, "completed")
    assert deliveries(shop, id) == []


@pytest.mark.hazard(14, 19)
def test_a_forged_webhook_changes_nothing(bench: Workshop, provider: Provider) -> None:
    provider.spoil(LOST)
    id, prediction = submitted(bench, provider)
    assert tell(bench, id, prediction, secret=b"x" * 32).status_code == 401
    assert tell(bench, id, prediction, nonce="wrong").status_code == 404
    stranger = "01890000-0000-7000-8000-000000000000"
    assert tell(bench, stranger, prediction, nonce="wrong").status_code == 404
    assert tell(bench, stranger, prediction, nonce="wrong", secret=b"x" * 32).status_code == 401
    assert bench.stage(id) == "processing" and deliveries(bench, id) == []
    bench.finished = False


@pytest.mark.hazard(16)
def test_a_webhook_sent_a_hundred_times_at_once_has_one_effect(shop: Workshop, provider: Provider) -> None:
    provider.spoil(LOST, {"kind": "output_slow", "bytes_per_s": 20_000})
    id = shop.ask()["id"]
    shop.reach(id, "processing")
    prediction = provider.ended(shop.row(id).provider_id or "")
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: tell(shop, id, prediction), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(not answer.json()["repeated"] for answer in answers) == 1
    shop.ended(id, "completed")
    assert len(deliveries(shop, id)) == 1 and provider.ledger["downloads"] == 1


@pytest.mark.hazard(21)
def test_a_webhook_is_answered_before_anything_is_downloaded(shop: Workshop, provider: Provider) -> None:
    provider.spoil(LOST, {"kind": "delay", "on": "output", "delay_s": 2.0})
    id = shop.ask()["id"]
    shop.reach(id, "processing")
    prediction = provider.ended(shop.row(id).provider_id or "")
    began = time.monotonic()
    assert tell(shop, id, prediction).status_code == 200
    assert time.monotonic() - began < 1
    shop.reach(id, "storing")
    shop.ended(id, "completed")


@pytest.mark.hazard(17)
def test_a_signed_webhook_about_another_prediction_changes_nothing(bench: Workshop, provider: Provider) -> None:
    """The provider's secret is one for the whole account: only the right prediction at the right URL counts."""
    provider.spoil(LOST, {"kind": "stuck", "match": {"prompt_contains": "mine"}})
    _, other = submitted(bench, provider, prompt="another")
    id = bench.ask(prompt="mine")["id"]
    bench.submit_next()
    assert tell(bench, id, other).status_code == 200
    believe(bench)
    assert bench.stage(id) == "processing"
    assert [row["note"] for row in deliveries(bench, id)] == ["another prediction"]
    bench.finished = False


@pytest.mark.hazard(17)
def test_one_prediction_for_two_rows_is_the_firsts_and_the_batch_goes_on(bench: Workshop, provider: Provider) -> None:
    """Two answers name it, then a batch of webhooks: the second row never gets it, and it is not stopped for that."""
    provider.spoil(LOST)
    submitted(bench, provider, prompt="so that the webhooks' secret is known")
    ids = [bench.ask(prompt=prompt)["id"] for prompt in ("one", "two", "three")]
    rows = bench.run(queue.claim(bench.ctx, ME, ("image",), 64, LEASE_MS))
    outcome = Outcome("theirs", "running")
    for row in rows[:2]:
        bench.run(submit._keep(bench.ctx, row, outcome))
    assert [bench.row(id).provider_id for id in ids] == ["theirs", None, None]
    for number, id in enumerate(ids):
        assert tell(bench, id, {"id": "theirs", "status": "processing"}, webhook_id=f"of_{number}").status_code == 200
    assert believe(bench) == 3
    assert [bench.stage(id) for id in ids] == ["processing", "submitting", "submitting"]
    notes = [[row["note"] for row in deliveries(bench, id)] for id in ids]
    assert notes == [["running"], ["another prediction"], ["another prediction"]]
    assert provider.ledger["cancels"] == []
    with pytest.raises(sqlite3.IntegrityError):  # and whoever forgets to ask is told by the database
        bench.run(
            bench.ctx.db.write(lambda tx: generations.note(tx, ids[1], status="submitting", provider_id="theirs"))
        )
    bench.finished = False


@pytest.mark.hazard(17)
def test_an_unclear_submit_does_not_adopt_a_prediction_that_another_has(bench: Workshop, provider: Provider) -> None:
    provider.spoil(LOST, {"kind": "reset_before", "match": {"prompt_contains": "mine"}})
    _, other = submitted(bench, provider, prompt="another")
    id = bench.ask(prompt="mine")["id"]
    bench.submit_next()
    assert tell(bench, id, other).status_code == 200
    believe(bench)
    assert bench.stage(id) == "unclear"
    bench.finished = False


@pytest.mark.hazard(18)
def test_a_late_webhook_does_not_wake_what_has_ended(bench: Workshop, provider: Provider) -> None:
    provider.spoil(LOST)
    id, prediction = submitted(bench, provider)
    bench.clock.forward(11)
    bench.look("processing")
    bench.look("storing")
    before = bench.ended(id, "completed")
    for number, status in enumerate(("starting", "processing", "failed", "canceled", "succeeded", "odd")):
        told = prediction | {"status": status, "error": "late"}
        assert tell(bench, id, told, webhook_id=f"late_{number}").status_code == 200
    while believe(bench):
        pass
    assert bench.get(id) == before
    assert {row["note"] for row in deliveries(bench, id)} == {"late"}


def test_a_webhook_for_what_was_given_up_is_kept_and_changes_nothing(bench: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "reset_after"}, LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    provider.spoil({"kind": "list_empty"})
    bench.clock.forward(1000)
    bench.look("unclear")
    assert bench.ended(id, "failed")["error"]["code"] == "submit_unknown"
    provider.spoil()
    (listed,) = provider.http.get("/predictions").json()["results"]
    assert tell(bench, id, listed).status_code == 200
    believe(bench)
    bench.ended(id, "failed")


@pytest.mark.hazard(20)
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"x"', b"{", b"\xff\xfe", b'{"id": "\x00"}', b"{}", b'{"id": 5}', b"[" * 100_000],
    ids=lambda body: repr(body[:12]),
)
def test_signed_junk_is_no_server_error_and_changes_nothing(bench: Workshop, provider: Provider, body: bytes) -> None:
    provider.spoil(LOST)
    id, _ = submitted(bench, provider)
    at = int(time.time())
    headers = {
        "webhook-id": "junk",
        "webhook-timestamp": str(at),
        "webhook-signature": signatures.sign(SECRET, "junk", at, body),
    }
    path = f"/webhooks/replicate/{id}/{bench.row(id).nonce}"
    assert bench.http.post(path, content=body, headers=headers).status_code in (200, 400)
    believe(bench)
    assert bench.stage(id) == "processing"
    bench.finished = False


def test_a_webhook_that_cannot_be_worked_on_does_not_hold_up_the_others(
    shop: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicate = shop.ctx.providers["replicate"].webhooks
    read = replicate.read

    def break_on_bad(body: bytes) -> Any:
        if b"poison" in body:
            raise RuntimeError("nobody thought of this")
        return read(body)

    monkeypatch.setattr(replicate, "read", break_on_bad)
    monkeypatch.setattr(outcomes, "POLL_FIRST_S", {True: 150.0, False: 150.0})
    monkeypatch.setattr(outcomes, "POLL_LONGEST_S", {True: 150.0, False: 150.0})
    poisoned = shop.ask(prompt="poison")["id"]
    fine = shop.ask(prompt="fine")["id"]
    shop.ended(fine, "completed")
    shop.reach(poisoned, "processing")
    provider.ended(shop.row(poisoned).provider_id or "")  # or the poll would find it running, and the next is far
    until(lambda: [row["note"] for row in deliveries(shop, poisoned)] == ["set aside"] * 2)
    shop.forward(151)
    shop.ended(poisoned, "completed")


def test_those_behind_a_webhook_that_breaks_off_are_believed_before_it_is_set_aside(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.spoil(LOST)
    broken, fine = (submitted(bench, provider, prompt=prompt) for prompt in ("poison", "fine"))
    replicate = bench.ctx.providers["replicate"].webhooks
    read = replicate.read

    def break_on_bad(body: bytes) -> Any:
        if b"poison" in body:
            raise RuntimeError("nobody thought of this")
        return read(body)

    monkeypatch.setattr(replicate, "read", break_on_bad)
    for id, prediction in (broken, fine):
        assert tell(bench, id, prediction).status_code == 200
    for _ in range(2):  # together, then one by one
        with pytest.raises(RuntimeError):
            believe(bench)
    assert [row["note"] for row in deliveries(bench, broken[0])] == [None]
    assert bench.stage(fine[0]) == "storing"
    bench.finished = False


def test_a_changed_webhook_secret_is_asked_for_again(bench: Workshop, provider: Provider) -> None:
    provider.spoil(LOST)
    id, prediction = submitted(bench, provider)
    replicate: Any = bench.ctx.providers["replicate"].webhooks
    replicate._secret, replicate._asked_at = b"o" * 32, 0
    assert tell(bench, id, prediction).status_code == 200
    assert tell(bench, id, prediction, secret=b"x" * 32, webhook_id="m2").status_code == 401
    bench.finished = False
