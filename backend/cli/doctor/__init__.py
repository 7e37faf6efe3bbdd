"""`reelhook doctor`: every setting with its value, whether it will work, and what to do when not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic import SecretStr, ValidationError

from backend.cli.doctor import machine, network
from backend.cli.doctor.check import Check, State
from backend.cli.output import print_table
from backend.cli.processes import setting_names
from backend.cli.settings import reasons
from backend.config import Settings
from backend.logs import redact


def examine() -> list[Check]:
    """Every setting in its order, then what belongs to none. No row and no file is changed by looking."""
    try:
        settings = Settings()
    except ValidationError as error:
        return [Check(name, "", State.FAIL, reason) for name, reason in reasons(error).items()]
    found = {check.name: check for check in asyncio.run(_run(settings))}
    listed = []
    for field, names in setting_names().items():
        plain = Check(names[0], "", State.OK, Settings.model_fields[field].description or "")
        listed.append(found.pop(names[0], plain).with_value(_value(settings, field)))
    return listed + list(found.values())


def passes(checks: Sequence[Check]) -> bool:
    """Whether nothing would fail."""
    return all(check.state is not State.FAIL for check in checks)


def show(checks: Sequence[Check]) -> None:
    """A table for people."""
    rows = [(check.name, check.value, check.state.value, check.advice) for check in checks]
    print_table(("setting", "value", "state", "meaning, or what to do"), rows)


async def _run(settings: Settings) -> list[Check]:
    from backend.http import Http

    http = Http()
    try:
        found = await asyncio.gather(
            machine.database(settings),
            machine.work(settings),
            machine.storage(settings),
            machine.redis(settings),
            network.replicate(settings, http),
            network.addresses(settings, http),
            network.access(settings),
            network.proxies(settings, http),
        )
    finally:
        await http.close()
    return [check for each in found for check in each]


def _value(settings: Settings, field: str) -> str:
    """The value as it may be shown: of a secret only that it is there."""
    value = getattr(settings, field)
    if value is None or value == "":
        return "-"
    return "***" if isinstance(value, SecretStr) else redact(str(value))
