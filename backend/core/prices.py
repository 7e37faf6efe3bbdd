"""What a run costs: a list of rules. The first rule that holds is the price. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.core.conditions import Condition
from backend.core.inputs import CLOSED, Number

Per = Literal["per_output", "per_second", "per_megapixel", "per_run", "per_predict_second"]
KINDS: tuple[Per, ...] = ("per_output", "per_second", "per_megapixel", "per_run", "per_predict_second")


@dataclass(frozen=True)
class Rule:
    """One price in US dollars, and the inputs and references with which it holds.

    An input stands in `when` by our name, a role as `references.<role>` with true or false.
    """

    __pydantic_config__ = CLOSED

    when: Condition = field(default_factory=dict)
    per_output: Number | None = None  # for each file it makes
    per_second: Number | None = None  # of each film, by the input `duration`
    per_megapixel: Number | None = None  # of each picture, by `megapixels`, else by the inputs `width` and `height`
    per_run: Number | None = None  # whatever it makes
    per_predict_second: Number | None = None  # that the model runs, as the provider reports
    typical_s: Number | None = None  # how long it runs, for the estimate
    megapixels: Number | None = None  # of a picture; its most where the model decides

    @property
    def kinds(self) -> list[Per]:
        """Return what it is paid by. A rule that passed the checks has exactly one."""
        return [kind for kind in KINDS if getattr(self, kind) is not None]

    def micros(self, facts: Mapping[str, Any], outputs: int) -> int:
        """Return what so many outputs of one run cost, in millionths of a dollar. `facts` has the inputs."""
        (kind,) = self.kinds
        one = round(float(getattr(self, kind)) * self._units(kind, facts) * 1_000_000)
        return one if kind in ("per_run", "per_predict_second") else one * outputs

    def _units(self, kind: Per, facts: Mapping[str, Any]) -> float:
        """Return how many units are paid for: of one output, or of the run."""
        if kind == "per_second":
            return float(facts["duration"])
        if kind == "per_megapixel":
            return float(self.megapixels or facts["width"] * facts["height"] / 1_000_000)
        return float(self.typical_s or 0) if kind == "per_predict_second" else 1.0

    def billed_micros(self, predict_s: float | None) -> int | None:
        """Return what a run of so many seconds costs, in millionths of a dollar; None when not the time is paid."""
        rate = self.per_predict_second
        return None if rate is None or predict_s is None else round(float(rate) * predict_s * 1_000_000)
