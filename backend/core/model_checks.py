"""What is wrong with a model, though each of its fields can be read: told when the catalog is loaded. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from backend.core.inputs import Input, is_of
from backend.core.models import PRICES, Model


def mistakes(model: Model) -> Iterator[str]:
    """Each mistake as a sentence."""
    for ours, known in model.inputs.items():
        yield from (f"the input {ours} {why}" for why in _of_input(known, model.name))
    if why := model.inputs["prompt"].refusal(model.fallback_prompt, model.name):
        yield f"the fallback_prompt does not fit: {why}"
    yield from _of_paths(model)
    for name, implied in model.resolutions.items():
        for ours, value in implied.items():
            if ours not in model.inputs or model.inputs[ours].refusal(value, model.name):
                yield f"the resolution {name} needs {ours} {value}, which the model does not take"
    if sum(kind in model.price for kind in PRICES) != 1:
        yield f"it needs one price of {', '.join(PRICES)}"


def _of_input(known: Input, model: str) -> Iterator[str]:
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
    """Each path is one input's own: what is sent may not depend on which was written last."""
    paths = {f"the input {ours}": known.path for ours, known in model.inputs.items()}
    for number, (name, path) in enumerate(paths.items()):
        if not all(path.split(".")):
            yield f"{name} has the path {path!r}, which has an empty part"
        for other, there in list(paths.items())[:number]:
            if f"{path}.".startswith(f"{there}.") or f"{there}.".startswith(f"{path}."):
                yield f"{name} and {other} have paths that overlap: {path} and {there}"
