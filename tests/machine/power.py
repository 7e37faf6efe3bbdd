"""What lies between a process and the world: at any crossing the power may go, before or after what is done there."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any


class PowerCut(BaseException):
    """The process is gone. No Exception: nothing in it may go on by catching this."""


@dataclass
class Mains:
    """The power of one process; with `left`, so many crossings are still to come."""

    left: int | None = None
    on: bool = True

    def check(self) -> None:
        """Once the power is gone, nothing crosses any more."""
        if self.left is not None:
            self.on = self.on and self.left > 0
            self.left -= 1
        if not self.on:
            raise PowerCut


class Border:
    """The database, the storage or the network as a process has it: each call crosses twice."""

    def __init__(self, inner: Any, mains: Mains) -> None:
        self._inner, self._mains = inner, mains

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def cross(*args: Any, **more: Any) -> Any:
            self._mains.check()
            result = await found(*args, **more)
            self._mains.check()
            return result

        return cross
