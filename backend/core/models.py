"""A model: what it takes, what it costs, how long it may run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from pydantic import StrictBool, StrictInt

from backend.core.errors import InvalidInput
from backend.core.generation import SOURCE_NAMES, Kind
from backend.core.inputs import CLOSED, Input, Value, put
from backend.core.roles import Role, RoleName

PRICES = (
    "per_output",
    "per_second",
    "per_predict_second",
)
STARTS: tuple[RoleName, ...] = ("first_frame", "image")  # what a picture is when no role is named, best first
Charge = Literal["free", "charged", "unknown"]


@dataclass(frozen=True)
class Model:
    """One model of one provider."""

    __pydantic_config__ = CLOSED

    name: str
    provider: str
    kind: Kind
    cancel_after_s: StrictInt
    fallback_prompt: str
    price: Mapping[str, Any]  # one of PRICES, with what belongs to it
    inputs: Mapping[str, Input]  # by our names; `prompt` is always among them
    references: Mapping[RoleName, Role] = field(default_factory=dict)
    resolutions: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)  # and the inputs that make each
    fixed: Mapping[str, Any] = field(default_factory=dict)  # what is always sent, in the provider's words
    start_image_aspect_ratio: str | None = None
    default: StrictBool = False
    retired: StrictBool = False
    on_cancel: Charge = "unknown"  # whether a run that was stopped is billed
    on_failure: Charge = "unknown"  # whether one that failed is
    checked_at: date | None = None  # when and where the price and the rest were looked up
    source: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raise InvalidInput unless this model takes `value` for our field `name`."""
        known = self.inputs.get(name)
        why = known.refusal(value, self.name) if known else f"{self.name} has no such setting"
        if why is not None:
            raise InvalidInput.of(name, why)

    @property
    def defaults(self) -> dict[str, Any]:
        """What is asked for when nothing is said."""
        return {ours: known.default for ours, known in self.inputs.items() if known.default is not None}

    @property
    def sizes(self) -> Mapping[str, Mapping[str, Value]]:
        """The resolutions it makes, each with the inputs that make it."""
        own = self.inputs.get("resolution")
        named = {str(value): {"resolution": value} for value in own.values} if own else {}
        return {**named, **self.resolutions}

    def value(self, params: Mapping[str, Any], name: str) -> Any:
        """What the model will use for our field `name`: what was asked for, else its default."""
        known = self.inputs.get(name)
        return params.get(name, known.default if known else None)

    @property
    def start(self) -> RoleName | None:
        """The role of a picture that is given without one."""
        return next((name for name in STARTS if name in self.references), None)

    @property
    def makes_start_image(self) -> bool:
        """Whether it moves a picture, which is made on the way when there are only words."""
        return self.kind == "video" and self.start is not None and self.references[self.start].required

    def given(self, source: Mapping[str, Any]) -> dict[RoleName, str]:
        """The roles of a generation's references, each with the field that gives it.

        A start image that must be is always among them: where none is given, one is made.
        """
        found: dict[RoleName, str] = {}
        fields = [name for name in SOURCE_NAMES if name in source]
        if self.start and (fields or self.references[self.start].required):
            found[self.start] = fields[-1] if fields else "image_id"
        if source.get("end_image"):
            found["last_frame"] = "end_image"
        return found

    def build(
        self, prompt: str | None, params: Mapping[str, Any], references: Mapping[RoleName, Sequence[str]] | None = None
    ) -> dict[str, Any]:
        """The provider's inputs: its names, only what was asked for, and the URLs of the references by their roles."""
        body: dict[str, Any] = deepcopy(dict(self.fixed))
        for ours, value in {**params, "prompt": prompt or self.fallback_prompt}.items():
            if known := self.inputs.get(ours):
                put(body, known.path, known.theirs(value))
        for name, urls in (references or {}).items():
            if urls and (role := self.references.get(name)):
                put(body, role.path, list(urls) if role.list else urls[0])
        return body

    def cost_micros(self, params: Mapping[str, Any], outputs: int = 1) -> int:
        """What so many outputs of one prediction cost, in millionths of a dollar: exact where there is a list price.

        A model that is billed by the time it runs is estimated by how long it typically does, whatever it makes.
        """
        if "per_output" in self.price:
            return round(float(self.price["per_output"]) * 1_000_000) * outputs
        if "per_predict_second" in self.price:
            return round(float(self.price["per_predict_second"]) * float(self.price["typical_s"]) * 1_000_000)
        rate = self.price["per_second"]
        per_second = rate[self.value(params, self.price["by"])] if "by" in self.price else rate
        return round(float(per_second) * int(self.value(params, "duration")) * 1_000_000) * outputs

    def billed_micros(self, predict_s: float | None) -> int | None:
        """What the provider bills for this run, however it ended; None where the list price or nothing is billed."""
        rate = self.price.get("per_predict_second")
        return None if rate is None or predict_s is None else round(float(rate) * predict_s * 1_000_000)
