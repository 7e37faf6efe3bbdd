"""Conditions on the inputs of a request: when a reference may be given, and when a price holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.core.inputs import Value, shown

Condition = Mapping[str, tuple[Value, ...]]  # each input with the values that fulfil it; all must hold


def holds(condition: Condition, facts: Mapping[str, Any]) -> bool:
    """Return whether each input has one of its values. `facts` must have the defaults of what was not asked for."""
    return all(facts.get(name) in allowed for name, allowed in condition.items())


def told(condition: Condition) -> str:
    """Return the condition in words: `mode pro and duration 5 or 10`."""
    return " and ".join(f"{name} {' or '.join(map(shown, allowed))}" for name, allowed in condition.items())
