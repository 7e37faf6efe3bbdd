"""How tests wait: for something that can be seen to happen, and never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.005


def until(condition: Callable[[], T], within_s: float = 20.0) -> T:
    """Return what the condition gives as soon as that is true; fail when it is not in time."""
    ends_at = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < ends_at, f"it did not happen in {within_s:g} seconds"
        time.sleep(LOOK_S)
    return found


async def come_true(condition: Callable[[], T], within_s: float = 20.0) -> T:
    """The same, and the test's own loop goes on meanwhile."""
    ends_at = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < ends_at, f"it did not happen in {within_s:g} seconds"
        await asyncio.sleep(LOOK_S)
    return found
