"""Plays cases and counts: runs, kills, and what the auditor found after each."""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from auditor import LOST, PAID_TWICE, STUCK, Finding
from emulating import TINY, emulating
from gateway import new_gateway

from crashes.case import Case, CleanRun
from crashes.scene import Scene

PATIENT = replace(TINY, webhook_delays_s=(0.2,) * 40)  # a restart takes a second or two


@dataclass
class Score:
    """What the runs of one case came to."""

    case: Case
    runs: int = 0
    kills: int = 0
    seconds: float = 0.0
    found: list[Finding] = field(default_factory=list)

    def count(self, sort: str) -> int:
        return sum(one.sort == sort for one in self.found)


def play(case: Case, round: int, seed: int = 1) -> tuple[int, list[Finding]]:
    """One run in a new folder: how many kills, and what was found. Raises CleanRun."""
    chance = random.Random(f"{seed} {case.name} {round}")
    with tempfile.TemporaryDirectory(prefix="reelhook-crash-") as place, emulating(PATIENT) as provider:
        service = new_gateway(Path(place), provider)
        scene = Scene(Path(place), provider, service, round, chance)
        try:
            case.story(scene)
            scene.settle()
            return scene.kills, scene.audit()
        finally:
            service.abandon()
            service.close()
            scene.at_the_end.close()


def score(case: Case, share: float = 1.0, seed: int = 1) -> Score:
    """The rounds of one case, one after the other, until a clean run or its number of rounds."""
    result, began = Score(case), time.monotonic()
    for round in range(max(1, math.ceil(case.rounds * share))):
        try:
            kills, found = play(case, round, seed)
        except CleanRun:
            break
        except Exception as error:  # a story that cannot be told is a finding too, and the others go on
            kills, found = 0, [Finding("broken", f"round {round}: {type(error).__name__}: {error}"[:2000])]
        result.runs, result.kills = result.runs + 1, result.kills + kills
        result.found += found
    result.seconds = time.monotonic() - began
    return result


def play_all(cases: Sequence[Case], share: float, beside: int, told: Callable[[Score], None]) -> list[Score]:
    """All cases, so many beside each other; `told` hears of each as it is done."""

    def one(case: Case) -> Score:
        result = score(case, share)
        told(result)
        return result

    with ThreadPoolExecutor(beside) as pool:
        return list(pool.map(one, cases))


def table(scores: Iterable[Score]) -> str:
    """One line a case: point, name, runs, kills, lost, paid twice, stuck, anything else."""
    lines = [f"{'':2} {'case':66} {'runs':>5} {'kills':>6} {'lost':>5} {'paid twice':>10} {'stuck':>6} {'other':>6}"]
    total: Counter[str] = Counter()
    for one in scores:
        lost, twice, stuck = (one.count(sort) for sort in (LOST, PAID_TWICE, STUCK))
        figures = {"runs": one.runs, "kills": one.kills, "lost": lost, "twice": twice, "stuck": stuck}
        figures["other"] = len(one.found) - lost - twice - stuck
        total.update(figures)
        lines.append(_line(one.case.point, one.case.name, figures))
    return "\n".join([*lines, _line("", f"all {len(lines) - 1}", total)])


def _line(point: str, name: str, figures: dict[str, int] | Counter[str]) -> str:
    runs, kills, lost, twice, stuck, other = (
        figures[key] for key in ("runs", "kills", "lost", "twice", "stuck", "other")
    )
    return f"{point:2} {name:66.66} {runs:5} {kills:6} {lost:5} {twice:10} {stuck:6} {other:6}"
