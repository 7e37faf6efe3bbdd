"""Moving windows in memory, as a storage of the library `limits`."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from limits.storage import MemoryStorage

SCHEME = "reelhook-memory"  # by which the library finds this storage once the module is imported
SWEEP_S = 5.0


class Memory(MemoryStorage):
    """Moving windows in memory, for one event loop. The library's own start a thread every hundredth of a second."""

    STORAGE_SCHEME = [SCHEME]

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        super().__init__(uri, **options)
        self._windows: dict[str, tuple[deque[float], int]] = {}  # when each request came, and how long it counts
        self._sweep_at = time.time() + SWEEP_S

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` requests, if that many more may come within `expiry` seconds."""
        now = time.time()
        if now >= self._sweep_at:
            self._sweep(now)
        times = self._times(key, expiry, now)
        if len(times) + amount > limit:
            return False
        times.extend([now] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the window began (Unix seconds), and how many requests are in it."""
        now = time.time()
        times = self._times(key, expiry, now)
        return (times[0] if times else now), len(times)

    def _times(self, key: str, expiry: int, now: float) -> deque[float]:
        """The requests that still count, the oldest first."""
        times, _ = self._windows.setdefault(key, (deque(), expiry))
        while times and times[0] < now - expiry:
            times.popleft()
        return times

    def _sweep(self, now: float) -> None:
        """Forget the keys whose requests are all over: else everybody who ever asked would be remembered."""
        self._sweep_at = now + SWEEP_S
        for key, (times, expiry) in list(self._windows.items()):
            if not times or times[-1] < now - expiry:
                del self._windows[key]
