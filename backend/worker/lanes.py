"""The lanes of a worker: which rows it takes, how many at once, and what it does with each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backend.context import Context, LaneName
from backend.core.generation import PROCESSING, STORING, SUBMITTING, UNCLEAR, Generation
from backend.core.webhooks import Outgoing
from backend.logs import times
from backend.steps import announce, collect, submit, watch

LEASE_MS = 30_000

AT_ONCE = 12  # rows taken up in one turn: more would hold up the event loop

_TIMES: dict[LaneName, times.By] = {"submit": times.SUBMIT, "collect": times.COLLECT}

Row = Generation | Outgoing  # what is claimed, and worked on under a lease

Work = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class Lane:
    """Rows of one state and what is done with them; `most` at a time.

    `work` gets the rows that were taken at once and returns what is done with each. `together`: they share
    something dear, so no more are taken until all of them are done.
    """

    name: LaneName
    claim: Callable[[int], Awaitable[Sequence[Row]]]
    work: Callable[[list[Any]], Work]
    most: int
    together: bool = False

    def room(self, busy: int) -> int:
        """How many rows it would take in all, while so many are being worked on."""
        if self.together:
            return 0 if busy else self.most
        return self.most - busy

    def next(self, busy: int) -> int:
        """How many rows to take in this turn."""
        return self.room(busy) if self.together else min(self.room(busy), AT_ONCE)


def lanes(ctx: Context, me: str, kinds: tuple[str, ...]) -> list[Lane]:
    """The lanes of the worker of this name, which sends generations of these kinds."""

    def of(status: str) -> Callable[[int], Awaitable[list[Generation]]]:
        return lambda limit: watch.claim(ctx, me, status, limit, LEASE_MS)

    return [
        Lane(
            "submit",
            lambda limit: submit.claim(ctx, me, kinds, limit, LEASE_MS),
            _each(lambda row: submit.send(ctx, row, me)),
            64,
        ),
        Lane("lost", of(SUBMITTING), _each(lambda row: watch.mark_lost(ctx, row, me)), 64),
        Lane("unclear", of(UNCLEAR), lambda rows: watch.look_for(ctx, rows, me), 200, together=True),
        Lane("poll", of(PROCESSING), _each(lambda row: watch.poll(ctx, row, me)), 32),
        Lane("collect", of(STORING), _each(lambda row: collect.store(ctx, row, me)), 40),
        Lane("tell", lambda limit: announce.claim(ctx, me, limit), _each(lambda row: announce.send(ctx, row)), 100),
    ]


def _each(work: Work) -> Callable[[list[Any]], Work]:
    """The same is done with each row, whichever were taken with it."""
    return lambda _: work


def observe(lane: Lane, row: Row, seconds: float) -> None:
    """Count how long a row was worked on, by its provider where there is one."""
    if isinstance(row, Outgoing):
        times.ANNOUNCE.observe(seconds)
    elif lane.name in _TIMES:
        _TIMES[lane.name].observe(row.provider, seconds)
