"""How much there is to do, and whether work is accepted and done: for metrics and for /readyz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.context import Context
from backend.core.errors import Unavailable
from backend.core.generation import IN_FLIGHT
from backend.db import operations, webhook_deliveries, webhook_endpoints
from backend.db.connection import Tx

WORKER_SILENT_MS = 30_000
OVERDUE_S = 120


@dataclass(frozen=True)
class Workload:
    """What is unfinished, by status; how late the most overdue row is; which providers are paused.

    `possibly_charged` and `set_aside` count failed generations: those that may have been billed, and those that nobody
    could work on. `untold` counts webhook deliveries still to be made. `stuck_s` is how late work is without a good
    reason: a row of the queue may wait while many are in flight.
    """

    unfinished: dict[str, int]
    late_s: int
    stuck_s: int
    paused: frozenset[str]
    possibly_charged: int
    set_aside: int
    untold: int
    disabled_endpoints: int


async def workload(ctx: Context) -> Workload:
    """Return how much there is to do now."""
    now = ctx.now()

    async def work(tx: Tx) -> Workload:
        counts = await operations.counts(tx)
        queued, begun = (
            _late_s(now, at) for at in (await operations.oldest_queued(tx), await operations.oldest_begun(tx))
        )
        busy = 2 * sum(counts.get(status, 0) for status in IN_FLIGHT) >= ctx.settings.max_in_flight
        paused = frozenset(await operations.pauses(tx, now))
        stuck_s = begun if busy else max(queued, begun)
        charged, aside = await operations.possibly_charged(tx), await operations.set_aside(tx)
        untold, disabled = await webhook_deliveries.count_pending(tx), await webhook_endpoints.count_disabled(tx)
        return Workload(counts, max(queued, begun), stuck_s, paused, charged, aside, untold, disabled)

    return await ctx.db.read(work)


def _late_s(now: int, due_at: int | None) -> int:
    return max(0, now - due_at) // 1000 if due_at is not None else 0


async def readiness(ctx: Context) -> dict[str, dict[str, Any]]:
    """Return each check by its name, with `ok` and, if it is not, `why`."""
    now = ctx.now()
    try:
        beat = await ctx.db.read(operations.last_beat)
        load = await workload(ctx)
    except Unavailable as error:
        return {"database": {"ok": False, "why": error.message}}
    silent = beat is None or now - beat > WORKER_SILENT_MS
    # While a provider is left alone, rows wait for a good reason.
    stuck = load.stuck_s > OVERDUE_S and not load.paused
    reasons = {
        "database": None,
        "storage": await ctx.spool.trouble(),
        "worker": "no worker is alive: nothing that is accepted moves on" if silent else None,
        "queue": f"the oldest due row has waited {load.stuck_s} s" if stuck else None,
        "disk": _fullness(await ctx.spool.free_bytes(), ctx.settings.min_free_mb),
    }
    return {name: {"ok": why is None, "why": why} for name, why in reasons.items()}


def _fullness(free_bytes: int | None, min_free_mb: int) -> str | None:
    """Return why nothing new is accepted when so few bytes are free; None where the system does not say."""
    if free_bytes is None or free_bytes >= min_free_mb * 1_000_000:
        return None
    return f"only {free_bytes // 1_000_000} MB are free"
