"""What all routes share: the context of the steps, the keys, the limits and the mode they run in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.context import Context
from backend.core.people import Caller
from backend.live.tail import Tail
from backend.upkeep import readiness
from backend.web.callers.keyring import Keyring
from backend.web.callers.limits import Limits
from backend.web.callers.peers import Network
from backend.web.calls import metrics
from backend.web.calls.proxies import Lookout
from backend.web.calls.recent import Recent
from backend.web.calls.streams import Places

READINESS_S = 2.0  # the check of the storage writes a file
METRICS = 5  # scrapes that are counted anew in so many seconds


@dataclass(frozen=True)
class Site:
    """Everything that one running service has, except its routes.

    `dev_caller` is set in dev mode only: then everybody is this caller, and no key is asked for. `places` are those of
    open streams, and `tail` gives them events. `lookout` finds proxies that are not trusted. `recent_readiness` and
    `recent_metrics` may be asked for without a key, as often as somebody likes.
    """

    ctx: Context
    keyring: Keyring
    limits: Limits
    trusted_proxies: tuple[Network, ...] = ()
    dev_caller: Caller | None = None
    places: Places = field(default_factory=Places)
    tail: Tail = field(init=False)
    lookout: Lookout = field(init=False)
    recent_readiness: Recent[Mapping[str, Any]] = field(init=False)
    recent_metrics: Recent[bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tail", Tail(self.ctx))
        object.__setattr__(self, "lookout", Lookout(self.trusted_proxies))
        object.__setattr__(self, "recent_readiness", Recent(lambda: readiness.readiness(self.ctx), READINESS_S))
        object.__setattr__(self, "recent_metrics", Recent(self._scrape, METRICS, METRICS))

    def stop(self) -> None:
        """Stop with the service: streams end, and files that clients brought are not inspected for long any more."""
        self.tail.stop()
        self.ctx.cage.stop()

    async def _scrape(self) -> bytes:
        load, spooled = await readiness.workload(self.ctx), await self.ctx.spool.usage()
        metrics.weigh(load, [key for key, one in self.ctx.providers.items() if not one.is_internal], spooled)
        return await asyncio.to_thread(metrics.render)  # hundreds of series take longer than others should wait
