"""`reelhook doctor`: every setting with its value, whether it will work, and what to do when not."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Sequence
from typing import NoReturn

from pydantic import SecretStr, ValidationError

from backend.cli.doctor import machine, network
from backend.cli.doctor.check import Check, State
from backend.config import EnvFileError, Settings
from backend.config.loading import reasons, setting_names
from backend.logs import redact

CHECK_S = 15.0
LONGEST_S = 25.0


def examine(url: str) -> list[Check]:
    """Return a check for every setting in its order, then those that belong to none. Nothing is changed.

    `url` is where the service runs, if it does.
    """
    try:
        settings = Settings()
    except EnvFileError as error:
        return [Check(".env", "", State.FAIL, str(error))]
    except ValidationError as error:
        return [Check(name, "", State.FAIL, reason) for name, reason in reasons(error).items()]
    found = {check.name: check for check in _look(settings, url)}
    listed = []
    for field, names in setting_names().items():
        plain = Check(names[0], "", State.OK, Settings.model_fields[field].description or "")
        listed.append(found.pop(names[0], plain).with_value(_value(settings, field)))
    return listed + list(found.values())


def passes(checks: Sequence[Check]) -> bool:
    """Whether nothing would fail."""
    return all(check.state is not State.FAIL for check in checks)


def leave(status: int) -> NoReturn:
    """End the process now. A check that hangs is not waited for, and nothing that was looked at needs tidying up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _look(settings: Settings, url: str) -> list[Check]:
    """Return what each check found. They run in another thread: one that blocks it cannot stop the report."""
    found: list[list[Check]] = []
    thread = threading.Thread(target=lambda: asyncio.run(_run(settings, found, url)), daemon=True)
    thread.start()
    thread.join(LONGEST_S)
    if not found:
        return [Check("doctor", "", State.FAIL, f"the checks did not come to an end in {LONGEST_S:.0f} s")]
    return found[0]


async def _run(settings: Settings, found: list[list[Check]], url: str) -> None:
    from backend.http import Http

    http = Http()
    looks: dict[str, Awaitable[list[Check]]] = {
        "DATABASE_URL": machine.database(settings),
        "generations": machine.work(settings),
        "STORAGE_URL": machine.storage(settings),
        "REDIS_URL": machine.redis(settings),
        "files": machine.cage(),
        "REPLICATE_BASE_URL": network.replicate(settings, http),
        "NGROK_URL" if settings.ngrok_url else "BASE_URL": network.addresses(settings, http),
        "AUTH_MODE": network.access(settings),
        "TRUSTED_PROXIES": network.proxies(settings, http, url),
    }
    ended = await asyncio.gather(*(asyncio.wait_for(each, CHECK_S) for each in looks.values()), return_exceptions=True)
    found.append([check for name, end in zip(looks, ended, strict=True) for check in _told(name, end)])
    await http.close()


def _told(name: str, end: list[Check] | BaseException) -> list[Check]:
    """Return what a check found. A check that broke off is a finding as well."""
    if isinstance(end, TimeoutError):
        return [Check(name, "", State.FAIL, f"no answer within {CHECK_S:.0f} s")]
    if isinstance(end, BaseException):
        return [Check(name, "", State.FAIL, f"cannot be used: {redact(str(end)) or type(end).__name__}")]
    return end


def _value(settings: Settings, field: str) -> str:
    """Return the value as it may be shown: of a secret only that it is set."""
    value = getattr(settings, field)
    if value is None or value == "":
        return "-"
    return "***" if isinstance(value, SecretStr) else redact(str(value))
