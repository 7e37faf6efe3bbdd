"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line: a setting or another condition, what was found, and what it means or asks for."""

    name: str
    value: str
    state: State
    advice: str

    def with_value(self, value: str) -> Check:
        """Return the same check with the setting's value, unless it has a value of its own."""
        return self if self.value else replace(self, value=value)

    def as_dict(self) -> dict[str, str]:
        """Return the check for `--json`."""
        return {**asdict(self), "state": self.state.value}
