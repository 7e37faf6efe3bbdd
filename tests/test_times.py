"""How long each step takes is counted once for each time it is taken, under the provider's name."""

from __future__ import annotations

import re
from pathlib import Path

from emulating import Provider, png, receiving, until
from workshop import Workshop, working

PROVIDER = '{provider="replicate"}'
SLOW = {"kind": "create_hang", "delay_s": 1.5}


def metrics(shop: Workshop) -> dict[str, float]:
    lines = [line for line in shop.http.get("/metrics").text.splitlines() if line.startswith("reelhook_")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def more(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What was counted in between, of the histograms of steps."""
    found = {
        re.sub(r"reelhook_(\w+)_seconds_count(.*)", r"\1\2", name): value - before.get(name, 0)
        for name, value in after.items()
        if "_seconds_count" in name and "http" not in name
    }
    return {name: count for name, count in found.items() if count}


def counted(shop: Workshop, before: dict[str, float], name: str, times: int) -> dict[str, float]:
    """What was counted since, as soon as this one was."""
    found: dict[str, float] = until(lambda: (now := more(before, metrics(shop))).get(name) == times and now)
    return found


def test_each_step_of_a_generation_is_counted_with_its_provider(tmp_path: Path, provider: Provider) -> None:
    with working(tmp_path, provider, webhook_allow_cidrs="127.0.0.0/8") as shop, receiving() as receiver:
        before = metrics(shop)
        shop.ended(shop.ask(webhook_url=receiver.url)["id"], "completed")
        until(lambda: len(receiver.got) >= 2)
        found = counted(shop, before, "announce", 2)
        after = metrics(shop)
        for name in ("submit", "collect", "queue_wait"):
            assert found.pop(name + PROVIDER) == 1, name
        assert found.pop("hear" + PROVIDER) == 2  # it began, and it has ended
        assert found.pop("commit") >= 5
        assert {found.pop(f'claim{{lane="{lane}"}}') for lane in ("submit", "collect", "tell")} <= {1, 2}
        assert found == {"announce": 2}
        for name in ("submit", "hear", "collect", "queue_wait"):
            took_s = after[f"reelhook_{name}_seconds_sum{PROVIDER}"] - before.get(
                f"reelhook_{name}_seconds_sum{PROVIDER}", 0
            )
            assert 0 < took_s < 20, name


def test_what_waits_for_another_generation_or_is_put_off_waits_for_no_turn(shop: Workshop, provider: Provider) -> None:
    before = metrics(shop)
    image = shop.ask(asset_id=shop.upload(png()))["id"]
    video = shop.ask("video", image_id=image)["id"]
    shop.ended(video, "completed")
    provider.spoil({"kind": "create_429", "times": 1, "retry_after": 1})
    shop.ended(shop.ask()["id"], "completed")
    assert counted(shop, before, "submit" + PROVIDER, 4)["queue_wait" + PROVIDER] == 2


def test_an_idle_lane_has_no_rows_and_all_its_room(shop: Workshop) -> None:
    now = metrics(shop)
    of_replicate = [("replicate", lane) for lane in ("submit", "lost", "unclear", "poll", "collect")]
    of_nobody = [("", lane) for lane in ("lost", "unclear", "poll", "collect", "tell")]
    for account, lane in of_replicate + of_nobody:
        assert now[f'reelhook_lane_rows{{account="{account}",lane="{lane}"}}'] == 0
        assert now[f'reelhook_lane_room{{account="{account}",lane="{lane}"}}'] >= 32


def test_a_lane_says_what_it_has_in_hand(shop: Workshop, provider: Provider) -> None:
    provider.spoil(SLOW)
    shop.ask_many(3)
    until(lambda: metrics(shop)['reelhook_lane_rows{account="replicate",lane="submit"}'] == 3)
    assert metrics(shop)['reelhook_lane_room{account="replicate",lane="submit"}'] == 61
