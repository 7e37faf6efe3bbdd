"""The inputs of a model: what each takes in our words, and where it goes in the provider's body. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict, StrictBool, StrictFloat, StrictInt, StrictStr

Value = StrictStr | StrictInt | StrictFloat | StrictBool
Number = StrictInt | StrictFloat
Type = Literal["text", "integer", "number", "boolean"]

CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)  # how these are read from a file: nothing unknown, no NaN

_NOUNS = {"text": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}


@dataclass(frozen=True)
class Input:
    """One input: it takes one of `values`, or a number from `min` to `max`, or a text of up to `max_chars`."""

    __pydantic_config__ = CLOSED

    path: str  # in the provider's inputs; dots lead into objects
    type: Type = "text"
    values: Mapping[Value, Value] = field(default_factory=dict)  # ours, and what the provider calls it
    min: Number | None = None
    max: Number | None = None
    default: Value | None = None  # ours
    max_chars: StrictInt = 10_000

    def refusal(self, value: Any, model: str) -> str | None:
        """Return why this input of `model` does not take our value; None if it does."""
        right_type = is_of(self.type, value)
        if self.values:
            known = right_type and value in self.values  # True would be found as 1
            return None if known else f"{model} takes {', '.join(map(shown, self.values))}"
        if not right_type:
            return f"must be {_NOUNS[self.type]}"
        if isinstance(value, str):
            return f"at most {self.max_chars} characters" if len(value) > self.max_chars else None
        return f"{model} takes {self._range}" if self._is_outside(value) else None

    def theirs(self, value: Any) -> Any:
        """Return the provider's word for our value."""
        return self.values.get(value, value)

    def nearest(self, wanted: int) -> int:
        """Return the whole number that this input takes and that is nearest to the wanted one."""
        if self.values:
            return min((int(value) for value in self.values), key=lambda value: abs(value - wanted))
        least, most = (bound if bound is not None else wanted for bound in (self.min, self.max))
        return int(min(max(wanted, least), most))

    @property
    def _range(self) -> str:
        if self.min is None or self.max is None:
            return f"at most {self.max}" if self.min is None else f"{self.min} or more"
        return f"{self.min} to {self.max}"

    def _is_outside(self, value: float) -> bool:
        too_low = self.min is not None and value < self.min
        return too_low or (self.max is not None and value > self.max)


def is_of(type: Type, value: object) -> bool:
    """Return whether the value has this type. As in JSON, true is no number; and 5.0 is no whole number."""
    if type == "boolean" or isinstance(value, bool):
        return type == "boolean" and isinstance(value, bool)
    if type == "text":
        return isinstance(value, str)
    return isinstance(value, int if type == "integer" else int | float)


def type_of(values: Collection[object]) -> Type:
    """Return the narrowest type that has all of these values; text when no type has."""
    types: tuple[Type, ...] = ("boolean", "integer", "number")
    return next((type for type in types if all(is_of(type, value) for value in values)), "text")


def shown(value: object) -> str:
    """Return a value as it is written in JSON, without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path, and make the objects on the way."""
    *ways, last = path.split(".")
    for way in ways:
        body = body.setdefault(way, {})
    body[last] = value
