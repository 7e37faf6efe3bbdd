"""An answer that many may share: whoever asks without a key does not cost more by asking often."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """What `find` returned last. It is called once at a time, and `most` times within `within_s` seconds.

    Errors are shared in the same way.
    """

    def __init__(self, find: Callable[[], Awaitable[T]], within_s: float, most: int = 1) -> None:
        self._find = find
        self._within_s = within_s
        self._ended: deque[float] = deque(maxlen=most)
        self._asking: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        if self._asking is None or (self._asking.done() and self._may_ask()):
            self._asking = asyncio.create_task(self._ask())
        # One of those who wait may leave; the others still want the answer.
        return await asyncio.shield(self._asking)

    def _may_ask(self) -> bool:
        return len(self._ended) < (self._ended.maxlen or 0) or time.monotonic() >= self._ended[0] + self._within_s

    async def _ask(self) -> T:
        try:
            return await self._find()
        finally:
            self._ended.append(time.monotonic())
