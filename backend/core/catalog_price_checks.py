"""Find what is wrong with the prices of a model, when the catalog is loaded. Pure.

Every combination that can make a difference is tried: does some rule hold for it, and does each rule hold for one? Of
each input these are the values that the rules name, and one more for all the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from backend.core.conditions import holds
from backend.core.inputs import shown
from backend.core.models import Model
from backend.core.prices import KINDS, Rule

MOST_CASES = 100_000  # combinations: more would make the start slow
OTHER = "another value"


def mistakes_of_prices(model: Model) -> Iterator[str]:
    """Yield each mistake as a sentence. The conditions were checked before: they name the model's own inputs."""
    for number, rule in enumerate(model.prices, 1):
        yield from (f"the price {number} {why}" for why in _of_rule(rule, model))
    names = dict.fromkeys(name for rule in model.prices for name in rule.when)
    choices = {name: _choices(model, name) for name in names}
    if prod(map(len, choices.values())) > MOST_CASES:
        yield f"the prices tell more than {MOST_CASES} combinations apart"
    else:
        yield from _of_order(model, choices)


def _of_order(model: Model, choices: Mapping[str, list[Any]]) -> Iterator[str]:
    """Yield the combination for which no rule holds, or the rules for which no combination is left."""
    reached = set()
    for chosen in product(*choices.values()):
        case = dict(zip(choices, chosen, strict=True))
        if not _is_possible(model, case):
            continue
        first = next((n for n, rule in enumerate(model.prices, 1) if holds(rule.when, case)), None)
        if first is None:
            yield f"no price holds for {_told(case)}"
            return
        reached.add(first)
    for number in sorted({*range(1, len(model.prices) + 1)} - reached):
        yield f"the price {number} never holds: those before it do whenever it would"


def _of_rule(rule: Rule, model: Model) -> Iterator[str]:
    if len(rule.kinds) != 1:
        yield f"needs one of {', '.join(KINDS)}"
    numbers = [*(getattr(rule, kind) for kind in rule.kinds), rule.typical_s, rule.megapixels]
    if any(number is not None and number < 0 for number in numbers):
        yield "is negative"
    if rule.megapixels == 0 or rule.typical_s == 0:
        yield "is for nothing: typical_s and megapixels are above 0"
    if (rule.per_predict_second is None) != (rule.typical_s is None):
        yield "needs typical_s with per_predict_second, and only there"
    if rule.megapixels is not None and rule.per_megapixel is None:
        yield "has megapixels, which belong to per_megapixel"
    needed = ["duration"] if rule.per_second is not None else []
    if rule.per_megapixel is not None and rule.megapixels is None:
        needed = ["width", "height"]
    for name in needed:
        if not _is_always_positive(model, name):
            yield f"is by the {name}, and the model has no input {name} with a default and only numbers above 0"


def _is_always_positive(model: Model, name: str) -> bool:
    known = model.inputs.get(name)
    if known is None or known.default is None or known.type not in ("integer", "number"):
        return False
    least = [float(value) for value in known.values] or [float(known.min or 0)]
    return min(least) > 0


def _choices(model: Model, name: str) -> list[Any]:
    """Return what an input or a role can be: the values that rules name, one more, and None if it may be left out."""
    role = name.removeprefix("references.")
    if role != name:
        return [True] if any(role == each and one.required for each, one in model.references.items()) else [True, False]
    known = model.inputs[name]
    named = list(dict.fromkeys(value for rule in model.prices for value in rule.when.get(name, ())))
    everything = list(known.values) or ([True, False] if known.type == "boolean" else [*named, OTHER])
    others = [value for value in everything if value not in named][:1]
    return named + others + ([None] if known.default is None else [])


def _is_possible(model: Model, case: Mapping[str, Any]) -> bool:
    """Return whether a request can be like this: no reference is given that its inputs or other references rule out."""
    given = [role for role in model.references if case.get(f"references.{role}")]
    for role in given:
        known = model.references[role]
        when = {name: allowed for name, allowed in known.when.items() if name in case}
        is_alone = any(case.get(f"references.{other}") is False for other in known.needs)
        if is_alone or not holds(when, case) or {*known.excludes} & {*given}:
            return False
    return True


def _told(case: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{name} {'unsaid' if value is None else shown(value)}" for name, value in case.items()) or "anything"
    )
