"""Whose file is looked at, and how many at once: nobody's files hold up another's for long."""

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
WAIT_S = 8.0  # for a place; with the time for the look itself no answer takes half a minute


@dataclass(frozen=True)
class Place:
    """Who asks: a client that uploads, or nobody, for what a provider made."""

    client_id: str | None = None


OUTPUT = Place()


def upload(client_id: str) -> Place:
    """The place of what a client brings."""
    return Place(client_id)


class Places:
    """Outputs, which are paid for, have places that uploads never take; a client has one of the uploads'."""

    def __init__(self) -> None:
        self._outputs = asyncio.Semaphore(OUTPUTS)
        self._clients = places.Places(1, None, waiting=math.inf)
        self._uploads = places.Places(UPLOADS, None, waiting=math.inf)

    @asynccontextmanager
    async def taken(self, place: Place) -> AsyncIterator[None]:
        """One place for the time of the block. Raises MediaBusy; an output waits as long as it takes."""
        if place.client_id is None:
            async with self._outputs:
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
