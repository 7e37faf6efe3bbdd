"""Spent is never said to be free: what may have been billed counts, until the provider says otherwise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from auditor import witness
from emulating import Provider, until
from workshop import Workshop, working

from backend.core.billing import Facts, may_be_billed
from backend.core.errors import SettingsError
from backend.core.events import Event
from backend.core.model_files import parse
from backend.core.outcomes import Outcome
from backend.core.prices import Rule
from backend.live import shown
from backend.providers.catalog import files, load
from backend.providers.replicate import answers
from backend.steps import outcomes, queue

pytestmark = pytest.mark.hazard(57)
HOME = Path(__file__).parent.parent / "backend"
PRICE = 39_000
STUCK = {"kind": "stuck"}
LOST = {"kind": "webhook_lost"}
BILLED = {"output_404", "output_truncated", "output_garbage", "output_html"}


@pytest.fixture
def bench(tmp_path: Path, provider: Provider) -> Iterator[Workshop]:
    """Without a worker and without webhooks: what the provider says is asked for."""
    with working(tmp_path, provider, worker=False, webhooks=False) as bench:
        yield bench


def give(bench: Workshop, usd: float) -> None:
    assert bench.http.patch(f"/api/v2/campaigns/{bench.campaign_id}", json={"budget_usd": usd}).status_code == 200


def money(bench: Workshop) -> tuple[float, float]:
    found = bench.http.get(f"/api/v2/campaigns/{bench.campaign_id}").json()
    return found["spent_usd"], found["reserved_usd"]


def used(bench: Workshop) -> float:
    """What usage says was spent."""
    return float(bench.http.get("/api/v2/usage").json()["total"]["cost_usd"]["actual"])


def change_model(bench: Workshop, **changes: Any) -> None:
    known = bench.ctx.catalog
    key = ("replicate", "google/nano-banana")
    bench.ctx.catalog = replace(known, models={**known.models, key: replace(known.models[key], **changes)})


def run(bench: Workshop, provider: Provider, *faults: dict[str, Any]) -> str:
    """One image, sent; its id."""
    provider.spoil(LOST, *faults)
    id = str(bench.ask()["id"])
    bench.submit_next()
    return id


def begin(bench: Workshop, provider: Provider, id: str) -> None:
    until(lambda: provider.get(bench.row(id).provider_id or "")["status"] != "starting")


def look(bench: Workshop, *stages: str) -> None:
    bench.clock.forward(61)
    for stage in stages:
        bench.look(stage)


def learn(bench: Workshop, id: str, **told: Any) -> str:
    """The provider's word, as it would stand in an answer or a webhook."""
    outcome = answers.outcome({"id": bench.row(id).provider_id, **told}, bench.clock(), 3_600_000)
    return bench.run(bench.ctx.db.write(lambda tx: outcomes.learn(tx, bench.ctx, id, outcome)))


def shown_end(bench: Workshop, id: str) -> dict[str, Any]:
    """The generation as the event of its end shows it."""
    row = bench.row(id)
    at = row.finished_at or 0
    event = Event("e", id, row.client_id, row.campaign_id, f"generation.{row.status}", None, at)
    return dict(shown.event(bench.ctx, event, row)["data"])


FREE = (
    Facts(was_sent=False),
    Facts(was_sent=True, was_refused=True),
    Facts(was_sent=True, ended="canceled", began=False),
    Facts(was_sent=True, ended="canceled", began=False, on_cancel="charged"),
    Facts(was_sent=True, ended="canceled", began=True, on_cancel="free"),
    Facts(was_sent=True, ended="failed", began=True, on_failure="free"),
    Facts(was_sent=True, ended="failed", began=False, on_failure="charged"),
    Facts(was_sent=True, ended="canceled", began=True, billed_micros=0),
)
CHARGED = (
    Facts(was_sent=True),
    Facts(was_sent=True, began=False),  # it is still there, for all we know
    Facts(was_sent=True, ended="succeeded"),
    Facts(was_sent=True, ended="succeeded", began=False, on_failure="free"),
    Facts(was_sent=True, ended="canceled"),
    Facts(was_sent=True, ended="canceled", began=True),
    Facts(was_sent=True, ended="canceled", began=True, on_cancel="charged", on_failure="free"),
    Facts(was_sent=True, ended="failed"),
    Facts(was_sent=True, ended="failed", began=True, on_cancel="free"),
    Facts(was_sent=True, ended="canceled", began=False, billed_micros=1),
)


@pytest.mark.parametrize("facts", FREE)
def test_what_is_known_to_be_free_is_free(facts: Facts) -> None:
    assert not may_be_billed(facts)


@pytest.mark.parametrize("facts", CHARGED)
def test_whatever_else_ended_may_be_billed(facts: Facts) -> None:
    assert may_be_billed(facts)


BEGAN: list[tuple[dict[str, Any], bool | None]] = [
    ({"status": "starting"}, None),
    ({"status": "starting", "logs": "10%|"}, True),
    ({"status": "processing"}, True),
    ({"status": "resuming"}, None),
    ({"status": "resuming", "started_at": "2026-11-28T00:00:00Z"}, True),
    ({"status": "canceled"}, None),
    ({"status": "canceled", "started_at": None}, False),
    ({"status": "canceled", "completed_at": "2026-11-28T00:00:00Z"}, False),
    ({"status": "canceled", "completed_at": None}, None),
    ({"status": "canceled", "metrics": {"predict_time": 0}}, False),
    ({"status": "canceled", "metrics": {"predict_time": 0.2}, "started_at": None}, True),
    ({"status": "canceled", "started_at": "2026-11-28T00:00:00Z"}, True),
    ({"status": "canceled", "started_at": None, "logs": "loading"}, True),
    ({"status": "aborted"}, False),
    ({"status": "aborted", "started_at": "2026-11-28T00:00:00Z"}, True),
    ({"status": "failed"}, None),
    ({"status": "failed", "started_at": None}, False),
    ({"status": ["canceled"]}, None),
]


@pytest.mark.parametrize(("told", "began"), BEGAN)
def test_whether_it_began_is_what_its_own_words_say(told: dict[str, Any], began: bool | None) -> None:
    assert answers.outcome({"id": "p", **told}, 0, 1).began is began


def test_what_was_canceled_after_it_began_counts_again_and_again(bench: Workshop, provider: Provider) -> None:
    give(bench, 10 * PRICE / 1e6)
    provider.spoil(STUCK, LOST)
    for number in range(1, 11):
        id = bench.ask(prompt=f"number {number}")["id"]
        bench.submit_next()
        begin(bench, provider, id)
        bench.cancel(id)
        bench.look("processing")
        assert bench.ended(id, "canceled")["possibly_charged"]
        assert money(bench) == (round(number * PRICE / 1e6, 6), 0)
    refused = bench.http.post("/api/v2/generate/image", json={"campaign_id": bench.campaign_id, "prompt": "one more"})
    assert (refused.status_code, refused.json()["code"]) == (402, "budget_exceeded")
    assert used(bench) == round(10 * PRICE / 1e6, 6) and len(provider.ledger["creates"]) == 10


def test_what_was_canceled_before_it_began_is_free_once(bench: Workshop, provider: Provider) -> None:
    give(bench, PRICE / 1e6)
    for number in range(3):
        id = run(bench, provider, {"kind": "delay", "delay_s": 30.0})
        for _ in range(2):
            bench.cancel(id)
        bench.look("processing")
        assert not bench.ended(id, "canceled")["possibly_charged"], number
        assert learn(bench, id, status="canceled", started_at=None) == "late"
        assert money(bench) == (0, 0)


def test_a_start_that_was_heard_is_not_forgotten_by_its_end(bench: Workshop, provider: Provider) -> None:
    """A final body without times, or with others, does not undo it."""
    id = run(bench, provider, {"kind": "delay", "delay_s": 30.0})
    assert bench.row(id).began_at is None
    assert learn(bench, id, status="processing") == "running"
    assert bench.row(id).began_at is not None
    assert learn(bench, id, status="aborted", started_at=None) == "canceled"
    assert bench.get(id)["possibly_charged"] and money(bench) == (PRICE / 1e6, 0)


def test_a_cancel_whose_answer_tells_nothing_counts(bench: Workshop, provider: Provider) -> None:
    id = run(bench, provider, {"kind": "delay", "delay_s": 30.0})
    assert learn(bench, id, status="canceled") == "canceled"
    assert bench.get(id)["possibly_charged"] and money(bench) == (PRICE / 1e6, 0)


@pytest.mark.parametrize("value", [None, "", [], {}, [None], 3, {"a": {}}], ids=str)
def test_a_success_without_a_file_counts(bench: Workshop, provider: Provider, value: Any) -> None:
    id = run(bench, provider, {"kind": "output_empty", "value": value})
    provider.ended(bench.row(id).provider_id or "")
    look(bench, "processing")
    failed = bench.ended(id, "failed")
    assert (failed["error"]["code"], failed["possibly_charged"]) == ("output_invalid", True)
    assert money(bench) == (PRICE / 1e6, 0) and used(bench) == PRICE / 1e6


def test_a_success_whose_file_was_removed_counts(bench: Workshop, provider: Provider) -> None:
    id = run(bench, provider)
    prediction = bench.row(id).provider_id or ""
    provider.ended(prediction)
    assert provider.http.post(f"{provider.server.origin}/emulator/expire/{prediction}").status_code == 200
    look(bench, "processing")
    failed = bench.ended(id, "failed")
    assert (failed["error"]["code"], failed["possibly_charged"]) == ("output_expired", True)
    assert money(bench) == (PRICE / 1e6, 0)


@pytest.mark.parametrize("fault", sorted(BILLED))
def test_a_success_whose_file_cannot_be_had_counts(bench: Workshop, provider: Provider, fault: str) -> None:
    id = run(bench, provider, {"kind": fault})
    provider.ended(bench.row(id).provider_id or "")
    look(bench, "processing")
    for _ in range(40):
        if bench.get(id)["status"] in ("failed", "completed"):
            break
        bench.clock.forward(300)
        bench.look("storing")
    ended = bench.get(id)
    assert ended["possibly_charged"] == (ended["status"] == "failed")
    assert money(bench) == (PRICE / 1e6, 0)


@pytest.mark.parametrize(("on_failure", "counts"), [("free", False), ("charged", True), ("unknown", True)])
def test_a_run_that_failed_counts_unless_the_model_is_known_not_to_bill_it(
    bench: Workshop, provider: Provider, on_failure: str, counts: bool
) -> None:
    change_model(bench, on_failure=on_failure)
    id = run(bench, provider, {"kind": "failed"})
    provider.ended(bench.row(id).provider_id or "")
    look(bench, "processing")
    assert bench.ended(id, "failed")["possibly_charged"] is counts
    assert money(bench) == (PRICE / 1e6 if counts else 0, 0)


@pytest.mark.parametrize(("on_cancel", "counts"), [("free", False), ("charged", True), ("unknown", True)])
def test_a_run_that_was_stopped_counts_unless_the_model_is_known_not_to_bill_it(
    tmp_path: Path, provider: Provider, on_cancel: str, counts: bool
) -> None:
    with working(tmp_path, provider, worker=False, webhooks=False) as bench:
        change_model(bench, on_cancel=on_cancel)
        id = run(bench, provider, {"kind": "delay", "delay_s": 30.0})
        learn(bench, id, status="processing")
        learn(bench, id, status="canceled")
        assert bench.ended(id, "canceled")["possibly_charged"] is counts
        assert money(bench) == (PRICE / 1e6 if counts else 0, 0)


def test_a_model_that_is_not_known_any_more_counts(bench: Workshop, provider: Provider) -> None:
    id = run(bench, provider, STUCK)
    begin(bench, provider, id)
    bench.ctx.catalog = replace(bench.ctx.catalog, models={})
    learn(bench, id, status="failed", error="broken")
    assert bench.ended(id, "failed")["possibly_charged"] and money(bench) == (PRICE / 1e6, 0)


@pytest.mark.parametrize(("seconds", "counts"), [(2.0, True), (0, False), (None, True), ("2", True), (-1, True)])
def test_what_is_billed_by_time_is_billed_by_the_time_that_is_told(
    bench: Workshop, provider: Provider, seconds: Any, counts: bool
) -> None:
    change_model(bench, prices=(Rule(per_predict_second=0.01, typical_s=5),))
    id = run(bench, provider, {"kind": "delay", "delay_s": 30.0})
    metrics = {} if seconds is None else {"metrics": {"predict_time": seconds}}
    learn(bench, id, status="processing")
    learn(bench, id, status="canceled", **metrics)
    ended = bench.ended(id, "canceled")
    actual = round(0.01 * seconds, 6) if seconds in (2.0, 0) else None
    assert (ended["possibly_charged"], ended["cost_usd"]["actual"]) == (counts, actual)
    assert money(bench) == ((0.05 if actual is None else actual), 0)


def test_what_was_given_up_or_never_heard_of_counts_also_when_it_is_deleted(
    bench: Workshop, provider: Provider
) -> None:
    witness(bench.folder)
    overdue = run(bench, provider, STUCK)
    provider.spoil({"kind": "reset_after"}, LOST, {"kind": "list_empty"})
    unheard = str(bench.ask(prompt="unheard")["id"])
    bench.submit_next()
    bench.ctx.providers["replicate"].base_url = "http://127.0.0.1:9/v1"
    bench.clock.forward(3 * 3600)
    bench.look("processing")
    bench.look("unclear")
    assert bench.ended(overdue, "failed")["error"]["code"] == "timed_out"
    assert bench.ended(unheard, "failed")["error"]["code"] == "submit_unknown"
    assert bench.get(overdue)["possibly_charged"] and bench.get(unheard)["possibly_charged"]
    for id in (overdue, unheard):
        assert bench.http.delete(f"/api/v2/generations/{id}").status_code == 204
    assert money(bench) == (2 * PRICE / 1e6, 0) and used(bench) == 2 * PRICE / 1e6


LATE: list[tuple[dict[str, Any], bool, str]] = [
    ({"status": "aborted"}, False, "bill corrected"),
    ({"status": "canceled", "started_at": None}, False, "bill corrected"),
    ({"status": "failed", "error": "broken"}, False, "bill corrected"),  # this model's failures are free
    ({"status": "canceled", "started_at": "2026-11-28T00:00:00Z"}, True, "late"),
    ({"status": "canceled"}, True, "late"),
    ({"status": "succeeded", "output": "http://127.0.0.1/a.png"}, True, "late"),
    ({"status": "processing"}, True, "late"),
    ({"status": "starting"}, True, "late"),
]


@pytest.mark.parametrize(("told", "counts", "note"), LATE)
def test_what_turns_out_to_be_free_after_it_was_given_up_gives_its_reservation_back_once(
    bench: Workshop, provider: Provider, told: dict[str, Any], counts: bool, note: str
) -> None:
    id = run(bench, provider, {"kind": "delay", "delay_s": 60.0})
    bench.clock.forward(3 * 3600)
    bench.ctx.providers["replicate"].base_url = "http://127.0.0.1:9/v1"
    bench.look("processing")
    before = bench.ended(id, "failed")
    assert before["possibly_charged"] and money(bench) == (PRICE / 1e6, 0)
    assert [learn(bench, id, **told) for _ in range(3)] == [note, "late", "late"]
    spent = PRICE / 1e6 if counts else 0
    assert money(bench) == (spent, 0) and used(bench) == spent
    assert bench.get(id) == before | {"possibly_charged": counts}
    assert shown_end(bench, id) == before  # whoever is told of the end again is told the same
    if not counts:  # and if it says otherwise after all, it counts again
        learn(bench, id, status="succeeded", output=None)
        assert money(bench) == (PRICE / 1e6, 0) and shown_end(bench, id) == before


def test_what_was_refused_and_was_taken_all_the_same_counts(bench: Workshop, provider: Provider) -> None:
    id = run(bench, provider, {"kind": "create_422"})
    assert bench.ended(id, "failed")["possibly_charged"] is False and money(bench) == (0, 0)
    row = bench.row(id)
    told = {"id": "p1", "status": "processing", "webhook": f"http://127.0.0.1/webhooks/{id}/{row.nonce}"}
    for word, note in ((told | {"webhook": "http://127.0.0.1/x"}, "another prediction"), (told, "bill corrected")):
        outcome = answers.outcome(word, bench.clock(), 1)
        said = bench.run(bench.ctx.db.write(lambda tx, one=outcome: outcomes.learn(tx, bench.ctx, id, one)))
        assert said == note
    assert bench.get(id)["possibly_charged"] and money(bench) == (PRICE / 1e6, 0)
    assert learn(bench, id, status="canceled", started_at=None) == "late"  # it had begun


@pytest.mark.parametrize("token", ["r8_\u200babc", "r8_\nabc", "r8_é", "r8_\ud800", "r8_\0"])
def test_what_certainly_never_left_is_never_unclear_and_never_counts(
    bench: Workshop, provider: Provider, token: str
) -> None:
    replicate: Any = bench.ctx.providers["replicate"]
    right = replicate._credentials
    replicate._credentials = right | {"authorization": f"Bearer {token}"}
    id = bench.ask()["id"]
    for _ in range(3):
        bench.submit_next()
        assert bench.stage(id) == "queued" and bench.row(id).claimed_at is None
        bench.clock.forward(61)
    assert provider.ledger["creates"] == [] and money(bench) == (0, PRICE / 1e6)
    replicate._credentials = right
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    look(bench, "processing", "storing")
    bench.ended(id, "completed")


def test_what_could_not_be_sent_for_a_day_fails_and_is_free(bench: Workshop) -> None:

    bench.ctx.providers["replicate"].base_url = "http://127.0.0.1:99999/v1"
    id = bench.ask()["id"]
    bench.submit_next()
    bench.clock.forward(60 * 86_400)
    bench.submit_next()  # once more, after all that time
    bench.run(queue.give_up(bench.ctx))
    failed = bench.ended(id, "failed")
    assert (failed["error"]["code"], failed["possibly_charged"]) == ("provider_unavailable", False)
    assert money(bench) == (0, 0)


def test_a_refused_create_is_free(bench: Workshop, provider: Provider) -> None:
    id = run(bench, provider, {"kind": "create_422"})
    assert not bench.ended(id, "failed")["possibly_charged"] and money(bench) == (0, 0)


def test_every_model_says_what_it_bills_or_counts_as_charged() -> None:
    for model in load().models.values():
        assert {model.on_cancel, model.on_failure} <= {"free", "charged", "unknown"}
    text = files(HOME / "providers")["replicate"]
    with pytest.raises(SettingsError, match=r"replicate/models\.toml: google/nano-banana: on_cancel"):
        parse({"replicate": text.replace('on_cancel = "unknown"', 'on_cancel = "perhaps"')})
    silent = "\n".join(line for line in text.splitlines() if not line.startswith(("on_cancel", "on_failure")))
    assert {(one.on_cancel, one.on_failure) for one in parse({"replicate": silent}).models.values()} == {
        ("unknown", "unknown")
    }


def test_nobody_but_the_judge_says_that_something_may_be_billed() -> None:
    """A row begins with False; all else is the judge's."""
    sayers = set()
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            given = [each.arg for each in node.keywords] if isinstance(node, ast.Call) else []
            keys = [each for each in node.keys] if isinstance(node, ast.Dict) else []
            said = [each.value for each in keys if isinstance(each, ast.Constant)]
            if "possibly_charged" in [*given, *said]:
                sayers.add(str(path.relative_to(HOME)))
    assert sayers - {"steps/request.py", "steps/retry.py", "live/shown.py", "web/api/generation_lists.py"} == {
        "core/billing.py"
    }


def test_an_outcome_says_nothing_of_a_start_unless_it_was_told() -> None:
    assert Outcome("p", "canceled").began is None
