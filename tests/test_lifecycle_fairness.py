"""Many clients, one provider: everybody gets a turn, and no more is in flight than was allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from auditor import creates_of
from emulating import Provider, png, until
from workshop import ME, Workshop, working

from backend.steps import queue
from backend.worker import LEASE_MS

SLOW = {"kind": "delay", "on": "run", "delay_s": 0.1}


def _claim(bench: Workshop, owner: str = ME) -> list[str]:
    rows = bench.run(queue.claim(bench.ctx, owner, ("image", "video"), 64, LEASE_MS))
    return [row.id for row in rows]


def test_a_client_with_one_request_does_not_wait_behind_sixty(tmp_path: Path, provider: Provider) -> None:
    provider.spoil(SLOW)
    with working(tmp_path, provider, max_in_flight=4) as shop:
        many, one = (shop.campaign(name, shop.client(name)) for name in ("many", "one"))
        queue = [
            item["id"]
            for number in range(15)
            for item in shop.ask(prompt=f"of many {number}", campaign_id=many, copies=4)
        ]
        sent_before = len(provider.ledger["creates"])
        late = shop.ask(prompt="the only one", campaign_id=one)["id"]
        for id in [*queue, late]:
            shop.ended(id, "completed")
        order = [create["input"]["prompt"] for create in provider.ledger["creates"]]
        assert order.index("the only one") <= sent_before + 10


def test_clients_share_what_there_is(tmp_path: Path, provider: Provider) -> None:
    with working(tmp_path, provider, worker=False, max_in_flight=6) as bench:
        campaigns = [bench.campaign(name, bench.client(name)) for name in ("a", "b", "c")]
        for campaign, count in zip(campaigns, (12, 12, 1), strict=True):
            bench.ask_many(count, campaign_id=campaign)
        taken = [bench.row(id).campaign_id for id in _claim(bench)]
        assert [taken.count(campaign) for campaign in campaigns] == [2, 2, 1]
        taken += [bench.row(id).campaign_id for id in _claim(bench)]
        assert [taken.count(campaign) for campaign in campaigns] == [3, 2, 1] and _claim(bench) == []
        bench.finished = False


def test_the_client_with_the_fewest_in_flight_comes_first(tmp_path: Path, provider: Provider) -> None:
    with working(tmp_path, provider, worker=False, max_in_flight=4) as bench:
        busy, idle = (bench.campaign(name, bench.client(name)) for name in ("busy", "idle"))
        bench.ask_many(3, campaign_id=busy)
        assert len(_claim(bench)) == 3
        bench.ask_many(3, campaign_id=busy)
        bench.ask_many(3, campaign_id=idle)
        assert [bench.row(id).campaign_id for id in _claim(bench)] == [idle]
        bench.finished = False


def test_the_oldest_of_a_client_goes_first(bench: Workshop, provider: Provider) -> None:
    ids = bench.ask_many(5)
    assert _claim(bench) == ids
    bench.finished = False


@pytest.mark.parametrize("with_reference", [False, True])
def test_a_second_claim_takes_nothing_beyond_the_limit(
    tmp_path: Path, provider: Provider, with_reference: bool
) -> None:
    """Also while references of the first are still being uploaded, and their rows are queued."""
    with working(tmp_path, provider, worker=False, max_in_flight=2) as bench:
        source = {"asset_id": bench.upload(png())} if with_reference else {}
        ids = bench.ask_many(5, **source)
        assert _claim(bench) == ids[:2]
        assert _claim(bench, "another worker") == []
        if with_reference:
            bench.clock.forward(LEASE_MS / 1000 + 1)
            assert len(_claim(bench, "another worker")) == 2
        bench.finished = False


def test_no_more_is_in_flight_than_allowed(tmp_path: Path, provider: Provider) -> None:
    provider.spoil(SLOW)
    with working(tmp_path, provider, max_in_flight=3) as shop:
        asset = shop.upload(png())
        ids = [*shop.ask_many(8), *shop.ask_many(8, asset_id=asset)]
        most = 0

        def all_done() -> bool:
            nonlocal most
            by_status = provider.ledger["predictions"]
            most = max(most, by_status.get("starting", 0) + by_status.get("processing", 0))
            return by_status.get("succeeded", 0) == len(ids)

        until(all_done, 40)
        assert most <= 3
        for id in ids:
            assert len(creates_of(provider.ledger, id)) == 1


def test_what_is_claimed_is_nobody_elses(bench: Workshop) -> None:
    ids = bench.ask_many(10)
    assert sorted(_claim(bench) + _claim(bench, "another worker")) == sorted(ids)
    bench.finished = False
