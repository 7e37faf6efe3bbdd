"""How far a run is, in tenths, and how its work is stopped when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backend.emulator.kit.runs import Run

TOLD_EVERY_S = 0.5  # Replicate sends webhooks about its logs at most this often


class Stopped(Exception):
    """The run ended while it was worked at."""


async def lasts(run: Run, seconds: float) -> bool:
    """Waits; True as soon as the run has ended."""
    if seconds <= 0:
        return run.is_final
    try:
        async with asyncio.timeout(seconds):
            await run.ended.wait()
    except TimeoutError:
        pass
    return run.is_final


class Progress:
    """The share that is done: of the rendering, and of the time that a run takes at least."""

    def __init__(self, run: Run, least_s: float, is_closing: Callable[[], bool], tell: Callable[[], None]) -> None:
        self.run, self.least_s, self.is_closing, self.tell = run, least_s, is_closing, tell
        self.began = asyncio.get_running_loop().time()
        self.rendered = 0.0

    def report(self, share: float) -> None:
        """Called from the rendering thread; raises Stopped when nobody waits for the result any more."""
        self.rendered = share
        if self.run.is_final or self.is_closing():
            raise Stopped

    def left_s(self) -> float:
        return max(0.0, self.least_s - (asyncio.get_running_loop().time() - self.began))

    async def tick(self) -> None:
        while not await lasts(self.run, TOLD_EVERY_S / 2):
            if self.write(min(self.rendered, 1 - self.left_s() / self.least_s, 0.99)):
                self.tell()

    def write(self, share: float) -> bool:
        """Keeps the share when another tenth is done."""
        tenth = int(share * 10)
        if tenth <= (self.run.tenths[-1] if self.run.tenths else -1) or self.run.is_final:
            return False
        self.run.tenths.append(tenth)
        return True
