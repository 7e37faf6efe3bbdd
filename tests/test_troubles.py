"""What a person should look at is seen, and rows in trouble take no others with them."""

from __future__ import annotations

import asyncio
from typing import Any

from emulating import Provider, until
from workshop import ME, Workshop

from backend.cli.doctor import machine
from backend.core.generation import FAILED, Failure
from backend.db import generations, leases
from backend.steps import watch

UNHEARD = ({"kind": "webhook_lost"}, {"kind": "list_empty"})
WHY = Failure("provider_failed", "nobody could work on it")


def listed(bench: Workshop, **query: Any) -> list[str]:
    return [row["id"] for row in bench.http.get("/api/v2/generations", params=query).json()["items"]]


def metrics(bench: Workshop) -> dict[str, float]:
    lines = [line for line in bench.http.get("/metrics").text.splitlines() if line.startswith("reelhook_")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def doctors_word(bench: Workshop) -> tuple[str, str]:
    (check,) = asyncio.run(machine.work(bench.ctx.settings))
    return check.value, check.state.value


def test_what_is_unclear_is_listed_counted_and_told_by_the_doctor(bench: Workshop, provider: Provider) -> None:
    assert doctors_word(bench) == ("0 unclear, 0 possibly charged, 0 set aside", "ok")
    provider.spoil({"kind": "reset_after"}, *UNHEARD)
    id = bench.ask()["id"]
    bench.submit_next()
    assert listed(bench, stage="unclear") == listed(bench, stage="unclear", status="processing") == [id]
    assert listed(bench, stage="queued") == listed(bench, stage="unclear", status="pending") == []
    assert metrics(bench)['reelhook_generations{stage="unclear"}'] == 1
    assert doctors_word(bench) == ("1 unclear, 0 possibly charged, 0 set aside", "warn")
    bench.forward(3600)
    bench.look("unclear")
    assert listed(bench, possibly_charged="true") == [id] and listed(bench, possibly_charged="false") == []
    assert metrics(bench)["reelhook_possibly_charged"] == 1
    assert doctors_word(bench) == ("0 unclear, 1 possibly charged, 0 set aside", "warn")
    assert bench.http.get("/api/v2/generations", params={"stage": "lost"}).status_code == 422


def test_what_was_set_aside_is_counted_and_told_by_the_doctor(bench: Workshop) -> None:
    id = bench.ask()["id"]
    aside = {"failure": WHY, "attempts": 6}
    bench.run(bench.ctx.db.write(lambda tx: generations.move(tx, id, FAILED, now=bench.ctx.now(), **aside)))
    assert metrics(bench)["reelhook_set_aside"] == 1
    assert doctors_word(bench) == ("0 unclear, 0 possibly charged, 1 set aside", "warn")


def test_rows_in_hand_at_two_ends_in_a_row_come_one_after_the_other(bench: Workshop) -> None:
    """One of them may be what ends the process: the others are not in hand again when it does."""
    old = [bench.ask()["id"] for _ in range(3)]
    for _ in range(2):
        _claim_and_die(bench)
        bench.forward(60)
    new = bench.ask()["id"]
    _claim_and_die(bench)
    due = {id: bench.row(id).due_at for id in [*old, new]}
    gaps = [due[id] - due[new] for id in old]
    assert gaps == [leases.GAP_MS, 2 * leases.GAP_MS, 3 * leases.GAP_MS], due
    bench.finished = False


def test_when_the_clock_was_put_back_nothing_waits_for_it(bench: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "webhook_lost"}, {"kind": "delay", "on": "run", "delay_s": 0.2})
    running = bench.ask()["id"]
    bench.submit_next()
    queued = bench.ask()["id"]
    bench.clock.ahead_ms = -3_600_000
    assert bench.submit_next() == [] and bench.look("processing") == []
    assert bench.run(watch.heed_the_clock(bench.ctx)) == 2
    assert bench.run(watch.heed_the_clock(bench.ctx)) == 0
    assert bench.submit_next() == [queued]
    until(lambda: all(one["status"] == "succeeded" for one in provider.ledger["ends"]) and provider.ledger["ends"])
    assert bench.look("processing") == [running]
    bench.finished = False


def test_outputs_that_expire_soonest_are_taken_first(bench: Workshop, provider: Provider) -> None:
    ids = [bench.ask()["id"] for _ in range(3)]
    bench.submit_next()
    until(lambda: len(provider.ledger["ends"]) == 3)
    bench.forward(20)
    bench.look("processing")
    for id, expires_at in zip(ids, (3_000, 1_000, 2_000), strict=True):
        at = bench.ctx.now() + expires_at * 1000
        bench.run(
            bench.ctx.db.write(
                lambda tx, id=id, at=at: generations.note(tx, id, status="storing", outputs_expire_at=at)  # type: ignore[misc]
            )
        )
    taken = [bench.run(watch.claim(bench.ctx, ME, "storing", 1, 1000))[0].id for _ in range(3)]
    assert taken == [ids[1], ids[2], ids[0]]
    bench.finished = False


def _claim_and_die(bench: Workshop) -> None:
    """Rows are taken, and the process ends: at the next start their leases are released."""
    ctx = bench.ctx
    now = ctx.now()
    take = "UPDATE generations SET lease_owner = :owner, attempts = attempts + 1 WHERE due_at <= :now"
    bench.run(ctx.db.write(lambda tx: tx.run(take, owner=ME, now=now)))
    bench.run(ctx.db.write(lambda tx: leases.release_all(tx, ctx.now())))
