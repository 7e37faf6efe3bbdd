"""Failed attempts to show a valid key, counted by address: they decide how the next bad key is refused."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from backend.core.errors import TooManyRequests

LIMIT = 20
WINDOW_S = 60.0
_MAX_ADDRESSES = 10_000


class Attempts:
    """A moving window of attempts by address. An attempt with a good key is taken back."""

    def __init__(self, limit: int = LIMIT, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, address: str) -> float:
        """Count an attempt before its key is checked: else a burst of attempts would pass together.

        Returns what `forgive` takes. Raises TooManyRequests when the address has had its share.
        """
        now = self._clock()
        times = self._times.setdefault(address, deque())
        self._times.move_to_end(address)
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if len(times) >= self._limit:
            wait_s = math.ceil(times[0] + WINDOW_S - now)
            raise TooManyRequests("Too many failed attempts from this address.", retry_after=max(1, wait_s))
        times.append(now)
        # Whoever has many addresses could otherwise fill the memory with them.
        if len(self._times) > _MAX_ADDRESSES:
            self._times.popitem(last=False)
        return now

    def forgive(self, address: str, began: float) -> None:
        """Take an attempt back, because its key was good."""
        times = self._times.get(address)
        if times and began in times:
            times.remove(began)
