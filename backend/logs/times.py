"""How long each step takes, for Prometheus. Labels come from short, fixed lists only.

Observing costs about one microsecond: looking up a label costs four more, so it is done once and not with every value.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Gauge, Histogram

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)  # the database
STEP = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)  # somebody else's server is in it
WAIT = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)


class By:
    """A histogram with one label, whose values are few and never what a client wrote."""

    def __init__(self, label: str, name: str, meaning: str, buckets: Sequence[float]) -> None:
        self._all = Histogram(name, meaning, (label,), buckets=buckets)
        self._known: dict[str, Histogram] = {}

    def observe(self, value: str, seconds: float) -> None:
        """Count one that took so long."""
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self._all.labels(value)
        known.observe(seconds)


CLAIM = By("lane", "reelhook_claim_seconds", "Taking rows under a lease, when there were any", FAST)
QUEUE_WAIT = By("provider", "reelhook_queue_wait_seconds", "From a request's answer until it is first taken", WAIT)
SUBMIT = By("provider", "reelhook_submit_seconds", "Sending one generation, until the answer is kept", STEP)
HEAR = By("provider", "reelhook_hear_seconds", "From a provider's webhook kept until it is believed", STEP)
COLLECT = By("provider", "reelhook_collect_seconds", "Storing the files of one generation, in one try", STEP)
ANNOUNCE = Histogram("reelhook_announce_seconds", "One attempt to tell a client by webhook", buckets=STEP)
COMMIT = Histogram("reelhook_commit_seconds", "One commit, from its beginning until it is durable", buckets=FAST)

LANE_ROWS = Gauge("reelhook_lane_rows", "Rows that the worker has in hand", ("lane", "account"))
LANE_ROOM = Gauge("reelhook_lane_room", "How many more rows the worker would take", ("lane", "account"))
