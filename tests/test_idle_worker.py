"""A worker that has nothing to do writes nothing, and finds what becomes due as soon as before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from emulating import Provider, receiving, until
from face import FINAL
from workshop import ME, Workshop, working

from backend.context import LaneName
from backend.db import operations
from backend.steps import queue, submit
from backend.upkeep import due
from backend.worker import LEASE_MS
from backend.worker import loop as worker

BOTH = ("image", "video")


def lanes(bench: Workshop, kinds: tuple[str, ...] = BOTH) -> list[str]:
    """The lanes of the only account that are due."""
    found = bench.run(due.lanes(bench.ctx, kinds))
    assert {account for _, account in found} <= {"replicate"}
    return [name for name, _ in found]


def test_an_idle_worker_takes_no_write_lock(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []  # how many transactions there were before each
    real = due.lanes

    async def look(*args: Any) -> Any:
        looks.append(len(shop.changed))
        return await real(*args)

    shop.ended(shop.ask()["id"], "completed")
    monkeypatch.setattr(worker, "PATIENCE_S", 10.0)
    monkeypatch.setattr(due, "lanes", look)
    until(lambda: len(looks) > 3 and looks[-3] == looks[-1])  # what a start removes is removed
    first = len(looks)
    until(lambda: len(looks) > first + 8)
    assert looks[-1] - looks[first] <= 2, "more than a heartbeat or two"


def test_a_look_names_the_lanes_that_have_something_to_do(bench: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "delay", "on": "run", "delay_s": 0.2})
    assert lanes(bench) == []
    bench.ask()
    assert lanes(bench) == ["submit"] and lanes(bench, ("video",)) == []
    bench.clock.ahead_ms = -60_000
    assert lanes(bench) == []
    bench.clock.ahead_ms = 0
    until_at = bench.ctx.now() + 1000
    bench.run(bench.ctx.db.write(lambda tx: operations.pause(tx, "replicate", until_at, "it is busy")))
    assert lanes(bench) == []
    bench.clock.forward(2)
    (row,) = bench.run(queue.claim(bench.ctx, ME, BOTH, 64, LEASE_MS))
    assert lanes(bench) == []
    bench.clock.forward(LEASE_MS / 1000 + 1)
    assert lanes(bench) == ["lost"]
    bench.look("submitting")
    assert lanes(bench) == ["unclear"]
    bench.run(submit.send(bench.ctx, bench.row(row.id), ME))
    bench.finished = False


def test_no_look_finds_what_a_full_provider_cannot_take(tmp_path: Path, provider: Provider) -> None:
    with working(tmp_path, provider, worker=False, max_in_flight=1) as bench:
        bench.ask_many(2)
        assert len(bench.run(queue.claim(bench.ctx, ME, BOTH, 64, LEASE_MS))) == 1
        assert lanes(bench) == []
        bench.finished = False


@pytest.mark.parametrize("faults", [[], [{"kind": "webhook_lost"}]], ids=["told", "asked"])
def test_what_nobody_rings_for_is_found_by_looking(
    tmp_path: Path, provider: Provider, faults: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another process took the request and its webhooks: each lane, from the queue to the client's webhook."""
    monkeypatch.setattr(worker, "PATIENCE_S", 10.0)
    provider.spoil(*faults)
    with working(tmp_path, provider, webhook_allow_cidrs="127.0.0.0/8") as shop, receiving() as receiver:
        shop.ctx.wake = lambda *lanes: None  # type: ignore[method-assign]
        image = shop.ask(webhook_url=receiver.url)["id"]
        later = shop.ask("video", image_id=image, copies=4)  # more than are released with the end of their source
        for id in (image, *(item["id"] for item in later)):
            if faults and shop.stage(id) not in FINAL:
                until(lambda id=id: shop.stage(id) in ("processing", *FINAL))
                shop.clock.forward(30)
            shop.ended(id, "completed")
        until(lambda: [headers for headers, body in receiver.got if b"generation.completed" in body])


def test_a_long_report_delays_no_lane(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*args: Any) -> list[LaneName]:
        await asyncio.Event().wait()
        raise AssertionError("somebody waited for the report")

    monkeypatch.setattr(due, "lanes", never)
    shop.ctx.wake = lambda *lanes: None  # type: ignore[method-assign]
    shop.ended(shop.ask()["id"], "completed")


def test_a_look_that_fails_does_not_end_the_worker(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*args: Any) -> list[LaneName]:
        raise RuntimeError("it broke")

    monkeypatch.setattr(due, "lanes", breaks)
    shop.ctx.wake = lambda *lanes: None  # type: ignore[method-assign]
    shop.ended(shop.ask()["id"], "completed")
