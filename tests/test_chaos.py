"""Everything goes wrong at once, in short; `scripts/chaos` is the long form."""

from __future__ import annotations

import random

import pytest
from storms import weather
from storms.report import table
from storms.storm import Plan, run

from backend.emulator.kit.fault_kinds import KINDS
from backend.emulator.kit.faults import parse

pytestmark = pytest.mark.story


@pytest.mark.timeout(400)
def test_customers_faults_and_kills_at_once_lose_double_and_damage_nothing() -> None:
    report = run(Plan(generations=60, restarts=4, every_s=2.0, rare=8, calm_s=5.0))
    assert not report.found, table(report)
    assert report.shocks["kill"] and report.ends.total() + report.deleted >= 60
    assert report.ends["completed", ""] and report.struck.total() > 40, table(report)
    assert report.told["heard"] >= report.told["events"] >= 60 and report.moods["well"], table(report)
    assert any(what.startswith("hostile") for what in report.answers), table(report)
    assert report.refused and report.moods.total() > report.moods["well"] + report.moods["late"], table(report)


def test_the_weather_has_every_kind_of_fault() -> None:
    faults = weather.change(random.Random(1), 20)
    assert {fault["kind"] for fault in faults} == set(KINDS)
    assert all(parse(fault) for fault in faults)


@pytest.mark.parametrize("kind", ["stuck", "output_huge", "create_401", "create_402"])
def test_a_fault_that_nothing_ends_is_rare(kind: str) -> None:
    (fault,) = (one for one in weather.change(random.Random(1), 20) if one["kind"] == kind)
    assert fault["times"] <= 3
