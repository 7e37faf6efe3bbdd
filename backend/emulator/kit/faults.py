"""Faults: what goes wrong on purpose, for whom, and how often.

A fault is `{"kind": ..., "match": {...}, "times": N, ...arguments}`; without `times` it holds for good.
`match` takes `model`, `prompt_contains`, `nth` (the n-th occasion that matches, from 1) and `every` (n-th).
Occasions are a create (stages create, run, webhook), a GET, a list, a download (output).
"""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.core.errors import SettingsError
from backend.emulator.kit.fault_kinds import KINDS, MATCHES, Arguments, Stage, check


@dataclass
class Fault:
    """One fault with the counts of how often its match was seen and how often it struck."""

    kind: str
    stage: Stage
    arguments: Arguments
    match: dict[str, Any]
    times: int | None
    seen: int = 0
    struck: int = 0

    def strikes(self, stage: Stage, model: str, prompt: str) -> bool:
        """Counts the occasion when it matches."""
        if stage != self.stage or not self._matches(model, prompt):
            return False
        self.seen += 1
        due = self.seen == self.match.get("nth", self.seen) and self.seen % self.match.get("every", 1) == 0
        if not due or (self.times is not None and self.struck >= self.times):
            return False
        self.struck += 1
        return True

    def _matches(self, model: str, prompt: str) -> bool:
        return self.match.get("model", model) == model and self.match.get("prompt_contains", "") in prompt

    def as_json(self) -> dict[str, Any]:
        counts = {"times": self.times, "seen": self.seen, "struck": self.struck}
        return {"kind": self.kind, "match": self.match, **self.arguments, **counts}


@dataclass
class Faults:
    """The faults in force at one provider; `can_suffer` says which kinds can happen to it."""

    provider: str
    can_suffer: Callable[[str], bool]
    items: list[Fault] = field(default_factory=list)

    def replace(self, wanted: list[Any]) -> None:
        """Raises SettingsError for a fault that nobody knows or that cannot happen; then the old ones stay."""
        parsed = [parse(fault) for fault in wanted]
        for fault in parsed:
            if not self.can_suffer(fault.kind):
                raise SettingsError(f"Fault {fault.kind} cannot happen to {self.provider}")
        self.items = parsed

    def strike(self, stage: Stage, model: str = "", prompt: str = "") -> dict[str, Arguments]:
        """What goes wrong on this occasion: kind -> arguments."""
        return {fault.kind: fault.arguments for fault in self.items if fault.strikes(stage, model, prompt)}


async def pause(struck: dict[str, Arguments]) -> None:
    """Waits as long as a struck `delay` wants it."""
    if "delay" in struck:
        await asyncio.sleep(struck["delay"]["delay_s"])


def parse(wanted: Any) -> Fault:
    """One fault from its JSON; raises SettingsError."""
    if not isinstance(wanted, dict) or str(wanted.get("kind")) not in KINDS:
        raise SettingsError(f"No such fault: {wanted!r:.200}. Known are: {', '.join(KINDS)}")
    given = {name: value for name, value in wanted.items() if name not in ("seen", "struck")}
    kind, match, times = str(given.pop("kind")), given.pop("match", {}), given.pop("times", None)
    stage, arguments, _ = KINDS[kind]
    check(kind, match, MATCHES)
    check(kind, given, arguments)
    check(kind, {} if times is None else {"times": times}, MATCHES | {"times": 1})
    return Fault(kind, given.get("on", stage), {**arguments, **given}, match, times)


def load(path: Path) -> list[dict[str, Any]]:
    """TOML with `[[faults]]`, or JSON: a list, or an object with `faults`; raises SettingsError."""
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from wrong
    faults = document.get("faults") if isinstance(document, dict) else document
    if not isinstance(faults, list):
        raise SettingsError(f"{path}: a list of faults is expected")
    return faults
