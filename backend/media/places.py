"""Whose file is looked at, and how many at once: nobody's files hold up another's for long."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from backend.errors import MediaBusy

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


@dataclass
class _Client:
    """One client's place, and how many of its files want it."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class Places:
    """Outputs, which are paid for, have places that uploads never take; a client has one of the uploads'."""

    def __init__(self) -> None:
        self._outputs, self._uploads = asyncio.Semaphore(OUTPUTS), asyncio.Semaphore(UPLOADS)
        self._clients: dict[str, _Client] = {}

    @asynccontextmanager
    async def taken(self, place: Place) -> AsyncIterator[None]:
        """One place for the time of the block. Raises MediaBusy; an output waits as long as it takes."""
        if place.client_id is None:
            async with self._outputs:
                yield
            return
        client = self._clients.setdefault(place.client_id, _Client())
        client.wanted += 1
        try:
            await self._wait_for(client)
            try:
                yield
            finally:
                self._uploads.release()
                client.turn.release()
        finally:
            client.wanted -= 1
            if not client.wanted:
                self._clients.pop(place.client_id, None)

    async def _wait_for(self, client: _Client) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                await client.turn.acquire()
                try:
                    await self._uploads.acquire()
                except BaseException:
                    client.turn.release()
                    raise
        except TimeoutError:
            raise MediaBusy from None
