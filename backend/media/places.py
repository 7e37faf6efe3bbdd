"""How many files are looked at at once, and whose: nobody's files hold up another's for long."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from backend.core import places
from backend.core.errors import MediaBusy

UPLOADS = 4
OUTPUTS = max(2, min(4, os.cpu_count() or 2))
WORKS = max(1, (os.cpu_count() or 2) // 2)  # films that are made; each takes a processor for itself
WAIT_S = 8.0  # for a place; with the time for the look itself no answer takes half a minute


@dataclass(frozen=True)
class Place:
    """Who asks: the client that uploads, or None for an output of a provider and for a film that is made here."""

    client_id: str | None = None
    is_work: bool = False


OUTPUT = Place()
WORK = Place(is_work=True)


def upload(client_id: str) -> Place:
    """Return the place for what a client uploads."""
    return Place(client_id)


class Places:
    """Outputs have places that nobody else takes: they are paid for. A client has one of the places for uploads.

    Films that are made have places of their own, because each takes minutes. Who gets one is decided by the queue in
    the database, which is fair between clients.
    """

    def __init__(self) -> None:
        self._outputs = asyncio.Semaphore(OUTPUTS)
        self._works = asyncio.Semaphore(WORKS)
        self._clients = places.Places(1, None, waiting=math.inf)
        self._uploads = places.Places(UPLOADS, None, waiting=math.inf)

    @asynccontextmanager
    async def taken(self, place: Place) -> AsyncIterator[None]:
        """Have one place until the block ends. Raises MediaBusy for an upload; the others wait as long as it takes."""
        if place.client_id is None:
            async with self._works if place.is_work else self._outputs:
                yield
            return
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(WAIT_S):  # for both together
                    await stack.enter_async_context(self._clients.take(place.client_id))
                    await stack.enter_async_context(self._uploads.take("all"))
            except TimeoutError:
                raise MediaBusy from None
            yield
