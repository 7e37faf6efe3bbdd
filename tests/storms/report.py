"""What a storm came to, and how that is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from auditor import BACKWARDS, LOST, MISCOUNTED, STUCK, Finding

from storms.told import TAKEN


@dataclass
class Report:
    """What it came to. `ends` counts statuses and error codes, `moods` what receivers of webhooks answered."""

    found: list[Finding] = field(default_factory=list)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    shocks: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    told: dict[str, int] = field(default_factory=dict)
    moods: Counter[str] = field(default_factory=Counter)
    created: int = 0
    deleted: int = 0
    asked_s: float = 0.0
    seconds: float = 0.0

    @property
    def refused(self) -> int:
        """Requests that did not fit into a budget."""
        return sum(count for what, count in self.answers.items() if what.endswith(" 402"))


def table(report: Report) -> str:
    """The figures, and everything that was found."""
    total = report.ends.total()
    lines = [f"  {status:10} {code:20} {count:6}" for (status, code), count in sorted(report.ends.items())]
    shocks = ", ".join(f"{count} x {kind}" for kind, count in report.shocks.items())
    silent = sorted(kind for kind, count in report.struck.items() if not count)
    lines.insert(0, f"{total} generations and {report.deleted} deleted; {report.created} predictions; {shocks}")
    lines.append(
        f"faults: {report.struck.total()} of {len(report.struck)} kinds; without an occasion: {silent or 'none'}"
    )
    lines += _told(report)
    lines.append("answers: " + ", ".join(f"{what}: {count}" for what, count in sorted(report.answers.items())))
    lines.append(f"asked for {report.asked_s:.0f} s, ended after {report.seconds:.0f} s")
    sorts = Counter(one.sort for one in report.found)
    always = {LOST, "paid twice", STUCK, BACKWARDS, MISCOUNTED}
    lines.append(", ".join(f"{sort}: {sorts[sort]}" for sort in sorted(always | set(sorts))))
    return "\n".join([*lines, *(f"{one.sort}: {one.text}" for one in report.found)])


def _told(report: Report) -> list[str]:
    if not report.told:
        return []
    moods = ", ".join(f"{count} x {mood}" for mood, count in report.moods.most_common() if mood not in TAKEN)
    return [
        "told: {events} events, heard {heard} times by {listeners} listeners in {streams} streams".format(
            **report.told
        ),
        "webhooks: {deliveries} deliveries, {attempts} attempts kept, {letters} letters came".format(**report.told)
        + f"; receivers' faults: {moods or 'none'}",
        f"budgets: {report.refused} requests did not fit",
    ]
