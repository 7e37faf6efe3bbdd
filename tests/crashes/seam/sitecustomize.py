"""Python imports this first in a service under test: traps at the borders of its steps, which a story sets by a file.

The file is JSON: `place`, `side` before or after, `nth` time it comes by, `text` that must occur in what it is
called with, `lasting` (else the trap springs once), and what it does: kill -9 of itself, or an exception.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PLACES = {
    "commit": ("backend.db.sqlite", "SqliteDb", "_commit"),
    "create": ("backend.providers.over_http", "HttpProvider", "create"),
    "upload": ("backend.providers.replicate.files", "Files", "upload"),
    "ask": ("backend.providers.over_http", "HttpProvider", "ask"),
    "cancel": ("backend.providers.replicate.api", "Replicate", "cancel"),
    "store": ("backend.steps.collect", "", "store"),
    "file": ("backend.storage.folder", "Folder", "put_all"),
    "letter": ("backend.http.client", "Http", "send"),
    "word": ("backend.steps.receive", "", "_believe_bite"),
}
HOUSEHOLD = ("backend.upkeep.tidy", "backend.worker.loop")  # commits that are in no generation's life
TRAP = Path(os.environ.get("CRASH_TRAP", "trap.json"))
came_by: Counter[str] = Counter()


class Trapped(Exception):
    """The trap's own exception."""


def spring(place: str, side: str, given: tuple[Any, ...]) -> None:
    if place == "commit" and all(work.__module__ in HOUSEHOLD for *_, work, _ in given[1]):
        return
    try:
        text = TRAP.read_text("utf-8")
    except FileNotFoundError:
        return
    trap = json.loads(text)
    if (trap["place"], trap["side"]) != (place, side) or trap["text"] not in repr(given):
        return
    came_by[text] += 1
    if came_by[text] < trap["nth"]:
        return
    if not trap["lasting"]:
        TRAP.unlink()
    if trap["raises"]:
        raise Trapped
    os.kill(os.getpid(), signal.SIGKILL)


def trapped(place: str, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(work)
    async def call(*given: Any, **named: Any) -> Any:
        spring(place, "before", given)
        done = await work(*given, **named)
        spring(place, "after", given)
        return done

    return call


if "CRASH_TRAP" in os.environ:
    for place, (module, owner, name) in PLACES.items():
        where: Any = importlib.import_module(module)
        where = getattr(where, owner) if owner else where
        setattr(where, name, trapped(place, getattr(where, name)))
