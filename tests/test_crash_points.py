"""One case of every crash point, once; `scripts/crash` plays all of them, at another moment each time."""

from __future__ import annotations

import os

import pytest
from crashes.case import Case
from crashes.play import play
from crashes.stories import CASES, LEFT_OUT

pytestmark = pytest.mark.story

POINTS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOLD = "W"  # of what clients are told: one case for the events, one for webhooks, one for streams
FIRST = {(case.point, case.story.__module__ if case.point == TOLD else ""): case for case in reversed(CASES)}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", [FIRST[key] for key in sorted(FIRST)], ids=lambda case: f"{case.point}-{case.name}")
def test_nothing_is_lost_paid_twice_or_stuck_at_crash_point(case: Case) -> None:
    _, found = play(case, round=0)
    assert not found, f"{case.name}: {found}"


def test_every_crash_point_has_a_case() -> None:
    if LEFT_OUT and os.environ.get("REQUIRE_SERVICES") != "1":
        pytest.skip(f"this machine cannot play: {', '.join(LEFT_OUT)}")
    assert not LEFT_OUT
    assert {case.point for case in CASES} == set(POINTS)
