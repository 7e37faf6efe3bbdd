"""Places: a bound on how many do the same at a time, for each key, such as a client or a host. The next ones wait."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from backend.core.errors import NoPlace, ReelhookError

WAITING = 8  # that may wait for each place; more are refused at once, as they would only fill memory to time out


class Places:
    """`most` places for each key, given in the order of asking.

    Refused are those who wait longer than `wait_s` seconds, and those who come while `waiting` others wait for the same
    key. `refusal` makes the error that they get.
    """

    def __init__(
        self,
        most: int,
        wait_s: float | None,
        waiting: float | None = None,
        *,
        refusal: Callable[[], ReelhookError] = NoPlace,
    ) -> None:
        self._most = most
        self._longest = most * WAITING if waiting is None else waiting
        self._wait_s = wait_s
        self._refusal = refusal
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def take(self, key: str) -> AsyncIterator[None]:
        """Have one of this key's places until the block ends. Raises what `refusal` makes."""
        if self._taken[key] < self._most:
            self._taken[key] += 1
        else:
            await self._wait(key)
        try:
            yield
        finally:
            self._leave(key)

    async def _wait(self, key: str) -> None:
        """Wait until somebody hands over a place."""
        queue = self._waiting.setdefault(key, deque())
        if len(queue) >= self._longest:
            raise self._refusal()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came too late: the next one has it
                self._leave(key)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise
        finally:
            if turn in queue:
                queue.remove(turn)
            if not queue and self._waiting.get(key) is queue:  # else it is of those who came since
                del self._waiting[key]

    def _leave(self, key: str) -> None:
        # Handed over and not freed: between the two somebody who has just come could take it before the first in line.
        queue = self._waiting.get(key)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]
