"""Find what is wrong with a model although each of its fields can be read, when the catalog is loaded. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from backend.core.conditions import Condition
from backend.core.inputs import Input, Type, is_of, shown
from backend.core.models import Model
from backend.core.roles import RoleName

# The types in which requests give these; no request has a field for other inputs, so their defaults are always sent.
OURS: Mapping[str, Type] = {
    "prompt": "text",
    "negative_prompt": "text",
    "aspect_ratio": "text",
    "mode": "text",
    "resolution": "text",
    "duration": "integer",
    "seed": "integer",
}


def mistakes(model: Model) -> Iterator[str]:
    """Yield each mistake as a sentence."""
    for ours, known in model.inputs.items():
        yield from (f"the input {ours} {why}" for why in _of_input(ours, known, model.name))
    if model.cancel_after_s <= 0:
        yield "its cancel_after_s is not above 0"
    if why := model.inputs["prompt"].refusal(model.fallback_prompt, model.name):
        yield f"the fallback_prompt does not fit: {why}"
    if model.inputs["prompt"].default is not None:
        yield "the input prompt has a default, which is the fallback_prompt's place"
    for role in model.references:
        yield from (f"the reference {role} {why}" for why in _of_role(role, model))
    yield from _of_paths(model)
    for name, implied in model.resolutions.items():
        for ours, value in implied.items():
            if ours not in model.inputs or model.inputs[ours].refusal(value, model.name):
                yield f"the resolution {name} needs {ours} {value}, which the model does not take"
    for number, rule in enumerate(model.prices, 1):
        yield from (f"the price {number} {why}" for why in _of_condition(rule.when, model))


def _of_input(ours: str, known: Input, model: str) -> Iterator[str]:
    if known.type != OURS.get(ours, known.type):
        yield f"has the type {known.type}, and requests give it as {OURS[ours]}"
    bounds = [bound for bound in (known.min, known.max) if bound is not None]
    if bounds and (known.values or known.type not in ("integer", "number")):
        yield 'has min or max, which belong to an input without values and with type = "integer" or "number"'
    if len(bounds) == 2 and bounds[0] > bounds[1]:
        yield f"has a min {known.min} above its max {known.max}"
    if known.max_chars < 1:
        yield "has no room for a text: max_chars is below 1"
    if odd := [value for value in known.values if not is_of(known.type, value)]:
        yield f"has the value {odd[0]!r}, which is not of its type {known.type}"
    if known.default is not None and (why := known.refusal(known.default, model)):
        yield f"has the default {known.default!r}, which it does not take: {why}"


def _of_paths(model: Model) -> Iterator[str]:
    """Yield paths that two of them have: what is sent may not depend on which of them is written last."""
    paths = {f"the input {ours}": known.path for ours, known in model.inputs.items()}
    paths |= {f"the reference {name}": role.path for name, role in model.references.items()}
    paths |= {f"the fixed {path}": path for path in _leaves(model.fixed)}
    for number, (name, path) in enumerate(paths.items()):
        if not all(path.split(".")):
            yield f"{name} has the path {path!r}, which has an empty part"
        for other, there in list(paths.items())[:number]:
            if f"{path}.".startswith(f"{there}.") or f"{there}.".startswith(f"{path}."):
                yield f"{name} and {other} have paths that overlap: {path} and {there}"


def _leaves(fixed: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in fixed.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}"


def _of_role(name: RoleName, model: Model) -> Iterator[str]:
    role = model.references[name]
    if (role.max is not None and role.max < 1) or (not role.list and role.max not in (None, 1)):
        yield f"has the max {role.max}, which is for a list and at least 1"
    if odd := [each for each in role.formats if not re.fullmatch(r"(image|video|audio)/[\w.+-]+", each)]:
        yield f"has the format {odd[0]}, which is no content type of a picture, a film or a sound"
    if any(most is not None and most <= 0 for most in (role.max_mb, role.max_px)):
        yield "takes no file: max_mb and max_px are above 0"
    for word, others in (("excludes", role.excludes), ("needs", role.needs)):
        for other in others:
            if other == name or other not in model.references:
                yield f"{word} {other}, which is no other reference of the model"
            elif word == "excludes" and (model.references[other].required or other in role.needs):
                yield f"excludes {other}, without which it is never given"
    yield from _of_condition(role.when, model)


def _of_condition(condition: Condition, model: Model) -> Iterator[str]:
    """Yield what is wrong with a condition: an input that is not there, or a value that it does not take."""
    for name, allowed in condition.items():
        known = model.inputs.get(name) or _of_roles(name, model)
        odd = [value for value in allowed if known and known.refusal(value, model.name)]
        if known is None or not allowed or odd:
            shown_values = " or ".join(map(shown, odd or allowed)) or "nothing"
            yield f"is for {name} {shown_values}, which the model does not take"


def _of_roles(name: str, model: Model) -> Input | None:
    """Return a role as an input for conditions: it is given, or it is not."""
    return Input("", "boolean") if name in {f"references.{role}" for role in model.references} else None
