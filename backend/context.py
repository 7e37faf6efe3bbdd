"""What every step is given: the world outside, the time, and the bell that wakes the worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from backend.config import Settings
from backend.core.catalog import Catalog
from backend.core.ids import new_id
from backend.media.cage import Cage

if TYPE_CHECKING:
    from backend.db.connection import Db
    from backend.http import Http
    from backend.providers.base import Provider
    from backend.storage import Spool, Store


def now_ms() -> int:
    """Return the milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


LaneName = Literal["receive", "release", "submit", "lost", "unclear", "poll", "collect", "tell", "stream"]
# Which lanes may have work after what: each lane that is woken for nothing costs a transaction.
AFTER_A_REQUEST: tuple[LaneName, ...] = ("submit", "poll", "release", "tell", "stream")
AFTER_AN_OUTCOME: tuple[LaneName, ...] = ("collect", "submit", "release", "tell", "stream")
AFTER_THE_END: tuple[LaneName, ...] = ("submit", "release", "tell", "stream")


class Bell:
    """Wakes lanes of this process's worker. A worker of another process finds due rows by looking.

    So a bell that is not heard loses nothing: it saves the wait until the next look.
    """

    def __init__(self) -> None:
        self._lanes: list[tuple[LaneName, str | None, asyncio.Event]] = []

    def lane(self, name: LaneName, account: str | None = None) -> asyncio.Event:
        """Return a new event, which is set when the lane is woken and which the listener clears.

        With `account` it is one of several lanes of that name: for the rows of this account of a provider.
        """
        event = asyncio.Event()
        self._lanes.append((name, account, event))
        return event

    def ring(self, lanes: Collection[LaneName] = ()) -> None:
        """Wake these lanes, for whichever account they are; without names, all."""
        for name, _, event in self._lanes:
            if not lanes or name in lanes:
                event.set()

    def ring_at(self, lanes: Collection[tuple[LaneName, str | None]]) -> None:
        """Wake these lanes, of these accounts alone."""
        for name, account, event in self._lanes:
            if (name, account) in lanes:
                event.set()


async def heard(bell: asyncio.Event, within_s: float) -> None:
    """Return when the bell rings, or after `within_s` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await bell.wait()


@dataclass
class Context:
    """What a process works with; there is one for each process.

    `bell` is rung after the commit that leaves work for the worker: inside the transaction it would ring for a row that
    nobody can see yet.
    """

    settings: Settings
    db: Db
    http: Http
    spool: Spool
    store: Store
    catalog: Catalog
    providers: Mapping[str, Provider]  # by the keys of their accounts
    data_key: bytes
    old_data_keys: tuple[bytes, ...] = ()  # they verify, and sign nothing
    now: Callable[[], int] = now_ms
    bell: Bell = field(default_factory=Bell)
    awake_since: int = 0  # since when the worker of this process has been at work without a gap
    cage: Cage = field(default_factory=Cage)
    reserved_bytes: dict[str, int] = field(default_factory=dict)  # by client: for files that are on their way
    served: dict[str, str] = field(default_factory=dict)  # by account: the client whose row was taken last
    _free: tuple[int, int | None] = (0, None)

    @property
    def offered(self) -> list[str]:
        """Return the names of the providers that can be asked for, in the order of the settings."""
        return list(dict.fromkeys(one.name for one in self.providers.values() if not one.is_internal))

    def new_id(self) -> str:
        """Return a fresh UUIDv7."""
        return new_id(self.now())

    async def free_bytes(self) -> int | None:
        """Return how many bytes were free on the spool's disk within the last second; None if nobody knows."""
        looked_at, free = self._free
        if self.now() - looked_at > 1000:
            free = await self.spool.free_bytes()
            self._free = self.now(), free
        return free

    def wake(self, *lanes: LaneName) -> None:
        """Tell this process's worker that something is due in these lanes; without names, in any.

        The worker also looks by itself five times a second, so a wake that is forgotten costs time and no row.
        """
        self.bell.ring(lanes)
