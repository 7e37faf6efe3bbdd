"""How a generation ends before it has a result: canceled, failed, aborted, or out of time."""

from __future__ import annotations

from typing import Any

import pytest
from auditor import creates_of
from emulating import Provider, png, until
from workshop import Workshop

from backend.steps import collect

STUCK = {"kind": "stuck"}
LOST = {"kind": "webhook_lost"}


def test_what_was_not_sent_is_canceled_at_once(bench: Workshop, provider: Provider) -> None:
    waiting = bench.ask("video", prompt="kites")
    queued = waiting["source"]["image_id"]
    assert bench.cancel(waiting["id"]).json()["status"] == "canceled"
    assert bench.stage(queued) == "queued"
    assert bench.cancel(queued).json()["status"] == "canceled"
    assert bench.cancel(queued).json()["status"] == "canceled"
    assert bench.submit_next() == [] and provider.ledger["creates"] == []


def test_what_runs_is_stopped_at_the_provider(shop: Workshop, provider: Provider) -> None:
    provider.spoil(STUCK)
    id = shop.ask()["id"]
    shop.reach(id, "processing")
    answer = shop.cancel(id)
    assert answer.status_code == 202 or answer.status_code == 200
    shop.ended(id, "canceled")
    assert [cancel["prediction_id"] for cancel in provider.ledger["cancels"]] == [shop.row(id).provider_id]


def test_a_cancel_while_the_answer_is_awaited_is_carried_out_after_it(shop: Workshop, provider: Provider) -> None:
    provider.spoil(STUCK, {"kind": "delay", "on": "create", "delay_s": 0.6})
    id = shop.ask()["id"]
    shop.reach(id, "submitting")
    assert shop.cancel(id).json()["status"] == "pending"
    shop.ended(id, "canceled", within_s=5)
    assert len(provider.ledger["cancels"]) == 1


def test_a_cancel_while_throttled_ends_it_without_another_create(shop: Workshop, provider: Provider) -> None:
    provider.spoil(
        {"kind": "delay", "on": "create", "delay_s": 0.6}, {"kind": "create_429", "retry_after": 1, "times": 1}
    )
    id = shop.ask()["id"]
    shop.reach(id, "submitting")
    shop.cancel(id)
    shop.ended(id, "canceled")
    shop.forward(5)
    second = shop.ask()["id"]
    shop.ended(second, "completed")
    assert len(creates_of(provider.ledger, id)) == 1


def test_a_cancel_of_an_unclear_submit_is_carried_out_when_it_is_found(bench: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "reset_after"}, STUCK, LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    assert bench.cancel(id).json()["status"] == "processing"
    bench.clock.forward(6)
    bench.look("unclear")
    bench.look("processing")
    assert bench.ended(id)["status"] == "canceled"
    assert len(provider.ledger["cancels"]) == 1


def test_a_cancel_while_it_is_polled_is_not_forgotten(shop: Workshop, provider: Provider) -> None:
    provider.spoil(STUCK, LOST, {"kind": "delay", "on": "get", "delay_s": 0.6})
    id = shop.ask()["id"]
    shop.reach(id, "processing")
    shop.forward(11)
    until(lambda: provider.ledger["gets"])
    shop.cancel(id)
    shop.ended(id, "canceled", within_s=5)


@pytest.mark.parametrize("stage", ["storing", "completed"])
def test_what_has_a_result_cannot_be_canceled(bench: Workshop, provider: Provider, stage: str) -> None:
    provider.spoil(LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.clock.forward(11)
    bench.look("processing")
    if stage == "completed":
        bench.look("storing")
    assert bench.stage(id) == stage
    answer = bench.cancel(id)
    assert answer.status_code == 409 and answer.json()["code"] == "not_cancelable"
    if stage == "storing":
        bench.look("storing")
    bench.ended(id, "completed")


def test_a_cancel_that_came_too_late_at_the_provider_keeps_the_result(bench: Workshop, provider: Provider) -> None:
    provider.spoil(LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.cancel(id)
    bench.look("processing")
    bench.look("storing")
    bench.ended(id, "completed")


def test_many_cancels_against_many_ends_leave_each_with_one_end(shop: Workshop, provider: Provider) -> None:
    ids = shop.ask_many(12)
    for id in ids:
        assert shop.cancel(id).status_code in (200, 202, 409)
    ends = {shop.ended(id)["status"] for id in ids}
    assert ends <= {"completed", "canceled"}


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "failed"}, "failed", "moderated"),
        ({"kind": "failed", "error": "CUDA out of memory"}, "failed", "provider_failed"),
        ({"kind": "canceled"}, "canceled", None),
        ({"kind": "aborted"}, "canceled", None),
    ],
    ids=["moderated", "failed", "canceled", "aborted"],
)
@pytest.mark.parametrize("lost", [False, True], ids=["told", "polled"])
def test_what_the_provider_ends_ends_here(
    shop: Workshop, provider: Provider, fault: dict[str, Any], status: str, code: str | None, lost: bool
) -> None:
    provider.spoil(fault, *([LOST] if lost else []))
    id = shop.ask()["id"]
    if lost:
        shop.reach(id, "processing")
        until(lambda: provider.get(shop.row(id).provider_id or "").get("completed_at"))
        shop.forward(11)
    ended = shop.ended(id, status)
    assert (ended["error"] or {}).get("code") == code and ended["url"] is None


def test_every_create_bounds_how_long_it_may_run(bench: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, str]] = []
    call = bench.ctx.http.call

    async def note(method: str, url: str, **more: Any) -> Any:
        calls.append(more["headers"])
        return await call(method, url, **more)

    monkeypatch.setattr(bench.ctx.http, "call", note)
    bench.ask()
    bench.ask("video", asset_id=bench.upload(png()))
    bench.submit_next()
    limits = sorted(headers["cancel-after"] for headers in calls if "cancel-after" in headers)
    assert limits == ["600s", "900s"]
    assert not any("prefer" in headers for headers in calls)
    bench.finished = False


def test_a_prediction_that_never_ends_is_stopped_and_timed_out(bench: Workshop, provider: Provider) -> None:
    provider.spoil(STUCK, LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    for seconds in (11, 100, 500, 250):
        bench.clock.forward(seconds)
        bench.look("processing")
        assert bench.stage(id) == "processing" and provider.ledger["cancels"] == []
    bench.clock.forward(60)
    bench.look("processing")
    failed = bench.ended(id, "failed")
    assert failed["error"]["code"] == "timed_out" and len(provider.ledger["cancels"]) == 1


def test_a_result_that_is_found_after_the_deadline_is_kept(bench: Workshop, provider: Provider) -> None:
    """The cancel comes back with what it is, and it is finished: it was paid for."""
    provider.spoil(LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.clock.forward(1000)
    bench.look("processing")
    bench.look("storing")
    bench.ended(id, "completed")


def test_a_provider_that_cannot_be_asked_at_the_deadline_gets_time_to_come_back(
    bench: Workshop, provider: Provider
) -> None:
    provider.spoil(LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.base_url = "http://127.0.0.1:9/v1"
    for seconds in (1000, 600, 600):
        bench.clock.forward(seconds)
        assert bench.look("processing") == [id]
        assert bench.stage(id) == "processing"
    replicate.base_url = f"{provider.server.origin}/v1"
    bench.clock.forward(60)
    bench.look("processing")
    bench.look("storing")
    bench.ended(id, "completed")


def test_a_provider_that_never_comes_back_ends_it_some_day(bench: Workshop, provider: Provider) -> None:
    provider.spoil(STUCK, LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.base_url = "http://127.0.0.1:9/v1"
    bench.clock.forward(2 * 3600)
    bench.look("processing")
    assert bench.ended(id, "failed")["error"]["code"] == "timed_out"


@pytest.mark.parametrize(
    "fault", [{"kind": "get_500"}, {"kind": "get_429"}, {"kind": "get_404"}], ids=lambda fault: fault["kind"]
)
@pytest.mark.parametrize("polls_before", [0, 5])
def test_a_poll_that_goes_wrong_once_costs_a_wait_alone(
    bench: Workshop, provider: Provider, fault: dict[str, Any], polls_before: int
) -> None:
    provider.spoil(LOST, {"kind": "delay", "delay_s": 1.0})
    id = bench.ask()["id"]
    bench.submit_next()
    for _ in range(polls_before):
        bench.clock.forward(31)
        bench.look("processing")
    provider.spoil({**fault, "times": 2})
    for _ in range(2):
        bench.clock.forward(31)
        assert bench.look("processing") == [id]
        assert bench.stage(id) == "processing"
    provider.ended(bench.row(id).provider_id or "")
    bench.clock.forward(31)
    bench.look("processing")
    bench.look("storing")
    bench.ended(id, "completed")


def test_a_prediction_the_provider_does_not_know_is_a_failure_after_some_looks(
    bench: Workshop, provider: Provider
) -> None:
    provider.spoil(LOST, STUCK, {"kind": "get_404"})
    id = bench.ask()["id"]
    bench.submit_next()
    looks = 0
    while bench.stage(id) == "processing":
        bench.clock.forward(31)
        looks += len(bench.look("processing"))
    assert 3 <= looks <= 4 and bench.row(id).possibly_charged
    assert bench.ended(id, "failed")["error"]["code"] == "provider_failed"


def test_progress_only_grows(bench: Workshop, provider: Provider) -> None:
    from backend.core.outcomes import Outcome
    from backend.steps import outcomes

    provider.spoil(STUCK, LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    for progress, shown in ((0.3, 0.3), (0.2, 0.3), (None, 0.3), (0.5, 0.5)):
        outcome = Outcome(bench.row(id).provider_id or "", "running", progress=progress)
        bench.run(bench.ctx.db.write(lambda tx, outcome=outcome: outcomes.learn(tx, bench.ctx, id, outcome)))
        assert bench.get(id)["progress"] == shown
    bench.finished = False


def test_a_row_that_breaks_its_worker_is_set_aside_after_some_tries(
    shop: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    async def break_down(_: object, row: Any, __: str) -> None:
        tried.append(row.id)
        raise RuntimeError("nobody thought of this")

    with monkeypatch.context() as patch:
        patch.setattr(collect, "store", break_down)
        bad = shop.ask(prompt="bad")["id"]
        until(lambda: tried)
        while shop.get(bad)["status"] != "failed":
            count = len(tried)
            shop.forward(31)
            until(lambda: len(tried) > count or shop.get(bad)["status"] == "failed")  # noqa: B023
    assert len(tried) == 5 and shop.row(bad).possibly_charged
    shop.ended(shop.ask(prompt="fine")["id"], "completed")
