"""Warns of a proxy that TRUSTED_PROXIES does not name: all its clients count as one address."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog
from starlette.types import Scope

from backend.web.callers import peers
from backend.web.calls import metrics

AGAIN_S = 300.0
MOST_PEERS = 10  # anybody can send such a header: the log is not theirs to fill
_HEADERS = frozenset((b"x-forwarded-for", b"forwarded", b"x-real-ip"))

log = structlog.get_logger("backend.web.calls.proxies")


class Lookout:
    """Looks for forwarding headers from peers that are not trusted, and logs each peer once in five minutes."""

    def __init__(self, trusted: Sequence[peers.Network], clock: Callable[[], float] = time.monotonic) -> None:
        self._trusted = trusted
        self._clock = clock
        self._told: dict[str, float] = {}

    def look(self, scope: Scope) -> None:
        """Count the request and log its peer, if it was forwarded by one that is not trusted."""
        header = next((name for name, _ in scope["headers"] if name in _HEADERS), None)
        if header is None or (peer := peers.untrusted(scope, self._trusted)) is None:
            return
        metrics.UNTRUSTED.inc()
        now = self._clock()
        self._told = {known: at for known, at in self._told.items() if at > now - AGAIN_S}
        if peer not in self._told and len(self._told) < MOST_PEERS:
            self._told[peer] = now
            why = "it is not in TRUSTED_PROXIES: if it is your proxy, all its clients count as one address"
            log.warning("untrusted_proxy", peer=peer, header=header.decode(), why=why)
