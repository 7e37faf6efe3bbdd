"""Between the steps: what waited for a generation that has ended goes on, or fails with it, in small bites.

A few change in the transaction that ends the source; the rest is noted there, so a crash between two bites leaves a
state from which the next worker goes on.
"""

from __future__ import annotations

from backend.context import Context
from backend.db import dependencies, generations

SOURCES = 64  # of which each gets a bite a round: a source with thousands that wait holds up no other


async def go_on(ctx: Context) -> int:
    """Release a bite of what waited for each of the oldest that have ended; how many have."""
    ended = await ctx.db.read(lambda tx: dependencies.ended(tx, SOURCES))
    for id in ended:
        await ctx.db.write(lambda tx, id=id: generations.release(tx, id, ctx.now()))  # type: ignore[misc]
    return len(ended)
