"""Until when a row is waited for. Once that has passed, nothing that comes from the provider is expected any more."""

from __future__ import annotations

from backend.context import Context
from backend.core.generation import Generation

USUAL_LIMIT_S = 900  # of what is in no catalogue
GRACE_MS = 300_000  # after the provider's own deadline, until we give up
UNHEARD_MS = 3_600_000  # while the provider cannot be asked, one hour more: as long as its outputs live


def deadline_at(ctx: Context, generation: Generation) -> int:
    """Return when it is given up, in ms: the provider stops it by itself, and we allow for clocks and a last look."""
    return (generation.claimed_at or ctx.now()) + patience_ms(ctx, generation)


def patience_ms(ctx: Context, generation: Generation) -> int:
    """Return how long after its create it is given up, in ms."""
    model = ctx.catalog.model(generation.provider, generation.model)
    return (model.cancel_after_s if model else USUAL_LIMIT_S) * 1000 + GRACE_MS


def is_past(ctx: Context, at: int) -> bool:
    """Return whether a word that was due at `at` is given up: an hour later, if we had an hour to ask for it.

    After a weekend without a worker every row is overdue, and all their results may be there.
    """
    return ctx.now() > at + UNHEARD_MS and has_caught_up(ctx)


def has_caught_up(ctx: Context) -> bool:
    """Return whether a worker has been awake for an hour: before that it may not have looked at all that is overdue."""
    return ctx.now() > ctx.awake_since + UNHEARD_MS
