"""A model: what it takes, what it costs, how long it may run. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from pydantic import StrictBool, StrictInt

from backend.core.conditions import holds
from backend.core.errors import InvalidInput
from backend.core.generation import SOURCE_NAMES, Kind
from backend.core.inputs import CLOSED, Input, Value, put
from backend.core.prices import Rule
from backend.core.roles import Role, RoleName

STARTS: tuple[RoleName, ...] = ("first_frame", "image")  # the role of a picture that is given without one, best first
Charge = Literal["free", "charged", "unknown"]


def shorter_side(resolution: str) -> int | None:
    """Return the pixels of the shorter side by a resolution's name: `720p` has 720, `4k` has 2160."""
    found = re.match(r"(\d+) ?([kK]?)", resolution, re.ASCII)
    return int(found[1]) * (540 if found[2] else 1) if found else None


@dataclass(frozen=True)
class Model:
    """One model of one provider."""

    __pydantic_config__ = CLOSED

    name: str
    provider: str
    kind: Kind
    cancel_after_s: StrictInt
    fallback_prompt: str
    prices: tuple[Rule, ...]  # the first that holds is the price
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
        """Return what is asked for when the request does not say."""
        return {ours: known.default for ours, known in self.inputs.items() if known.default is not None}

    @property
    def sizes(self) -> Mapping[str, Mapping[str, Value]]:
        """Return the resolutions it makes, each with the inputs that make it."""
        own = self.inputs.get("resolution")
        named = {str(value): {"resolution": value} for value in own.values} if own else {}
        return {**named, **self.resolutions}

    @property
    def start(self) -> RoleName | None:
        """Return the role of a picture that is given without a role; None when the model takes no such picture."""
        return next((name for name in STARTS if name in self.references), None)

    @property
    def makes_start_image(self) -> bool:
        """Return whether it always starts from a picture: one is made first when a request has only words."""
        return self.kind == "video" and self.start is not None and self.references[self.start].required

    def given(self, source: Mapping[str, Any]) -> dict[RoleName, str]:
        """Return the roles of a generation's references, each with the field that gives it.

        A start image that the model needs is always among them: where none is given, one is made.
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
        """Return the provider's inputs, in its own names: what was asked for, and the URLs of the references.

        What was not asked for is not sent, so the provider's own defaults hold for it.
        """
        body: dict[str, Any] = deepcopy(dict(self.fixed))
        for ours, value in {**params, "prompt": prompt or self.fallback_prompt}.items():
            if known := self.inputs.get(ours):
                put(body, known.path, known.theirs(value))
        for name, urls in (references or {}).items():
            if urls and (role := self.references.get(name)):
                put(body, role.path, list(urls) if role.list else urls[0])
        return body

    def cost_micros(
        self, params: Mapping[str, Any], outputs: int = 1, source: Mapping[str, Any] | None = None
    ) -> int | None:
        """Return what so many outputs of one run cost, in millionths of a dollar; None when no price holds.

        A model that is billed by the time it runs is estimated by its typical time, whatever it makes.
        """
        facts = self.facts(params, source or {})
        rule = self._price(facts)
        return rule.micros(facts, outputs) if rule else None

    def billed_micros(
        self, predict_s: float | None, params: Mapping[str, Any], source: Mapping[str, Any] | None = None
    ) -> int | None:
        """Return what the provider bills for this run by its time, however it ended; None with a list price."""
        rule = self._price(self.facts(params, source or {}))
        return rule.billed_micros(predict_s) if rule else None

    def facts(self, params: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
        """Return what conditions look at: the inputs with their defaults, and for each role whether it is given."""
        given = self.given(source)
        roles = {f"references.{role}": role in given for role in self.references}
        return {**self.defaults, **params, **roles}

    def _price(self, facts: Mapping[str, Any]) -> Rule | None:
        return next((rule for rule in self.prices if holds(rule.when, facts)), None)
