"""The lanes of a worker: which rows it takes, how many at once, and what it does with each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backend.context import Context, LaneName
from backend.core.generation import PROCESSING, STORING, SUBMITTING, UNCLEAR, Generation
from backend.core.webhooks import Outgoing
from backend.logs import times
from backend.steps import adopt, announce, collect, lost, queue, submit, watch

LEASE_MS = 30_000  # the rows of a worker that was killed wait so long for the next one

AT_ONCE = 12  # rows that one turn takes: more would hold up the event loop, on which requests are answered too

_TIMES: dict[LaneName, times.By] = {"submit": times.SUBMIT, "collect": times.COLLECT}

Row = Generation | Outgoing  # what is claimed, and worked on under a lease

Work = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class Lane:
    """Rows of one state and what is done with them; `most` rows at a time. With `account`, those of this account.

    `work` gets the rows of one claim and returns what is done with each. `together`: the rows of a claim share
    something expensive, so no more are taken until all of them are done.
    """

    name: LaneName
    claim: Callable[[int], Awaitable[Sequence[Row]]]
    work: Callable[[list[Any]], Work]
    most: int
    together: bool = False
    account: str | None = None

    def room(self, busy: int) -> int:
        """Return how many more rows it would take while `busy` are being worked on."""
        if self.together:
            return 0 if busy else self.most
        return self.most - busy

    def next(self, busy: int) -> int:
        """Return how many rows to take in this turn."""
        return self.room(busy) if self.together else min(self.room(busy), AT_ONCE)


def lanes(ctx: Context, me: str, kinds: tuple[str, ...]) -> list[Lane]:
    """Return the lanes of the worker of this name, which sends generations of these kinds.

    Each account has its own lanes, so that a provider which hangs takes nobody else's places. Rows of an account that
    is not offered any more have lanes of their own too: their time runs out there.
    """
    own = [lane for key in ctx.providers for lane in (_submit(ctx, me, kinds, key), *_begun(ctx, me, key))]
    return [
        *own,
        *_begun(ctx, me, None),
        Lane("tell", lambda limit: announce.claim(ctx, me, limit), _each(lambda row: announce.send(ctx, row)), 100),
    ]


def _submit(ctx: Context, me: str, kinds: tuple[str, ...], account: str) -> Lane:
    """Return the lane of what is to be sent by this account."""
    at_once = ctx.providers[account].at_once
    return Lane(
        "submit",
        lambda limit: queue.claim(ctx, me, kinds, limit, LEASE_MS, account),
        _each(lambda row: submit.send(ctx, row, me)),
        64 if at_once is None else at_once,
        account=account,
    )


def _begun(ctx: Context, me: str, account: str | None) -> list[Lane]:
    """Return the lanes of what this account has; None: of what the accounts have that are not offered."""

    def of(status: str) -> Callable[[int], Awaitable[list[Generation]]]:
        if account is None:
            return lambda limit: watch.claim_left(ctx, me, status, limit, LEASE_MS)
        return lambda limit: watch.claim(ctx, me, status, limit, LEASE_MS, account)

    at: dict[str, Any] = {"account": account}
    return [
        Lane("lost", of(SUBMITTING), _each(lambda row: lost.mark(ctx, row, me)), 64, **at),
        # Together: one walk through the provider's list serves all that are looked for.
        Lane("unclear", of(UNCLEAR), lambda rows: adopt.look_for(ctx, rows, me), 200, together=True, **at),
        Lane("poll", of(PROCESSING), _each(lambda row: watch.poll(ctx, row, me)), 32, **at),
        Lane("collect", of(STORING), _each(lambda row: collect.store(ctx, row, me)), 40, **at),
    ]


def _each(work: Work) -> Callable[[list[Any]], Work]:
    """Return a work that does the same with each row, whichever rows were taken with it."""
    return lambda _: work


def observe(lane: Lane, row: Row, seconds: float) -> None:
    """Count how long a row was worked on, by its provider where there is one."""
    if isinstance(row, Outgoing):
        times.ANNOUNCE.observe(seconds)
    elif lane.name in _TIMES:
        _TIMES[lane.name].observe(row.account_key, seconds)
