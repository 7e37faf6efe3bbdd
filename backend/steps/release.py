"""Between the steps: release what waited for a generation that has ended, or fail it with that one, in small bites.

A few rows change in the transaction that ends the source. The rest is noted there, so after a crash between two bites
the next worker goes on.
"""

from __future__ import annotations

from backend.context import Context
from backend.db import dependencies, generations

SOURCES = 64  # each gets one bite a round, so that a source with thousands that wait holds up no other


async def go_on(ctx: Context) -> int:
    """Release a bite of what waited for each of the oldest ended sources; return how many sources there were."""
    ended = await ctx.db.read(lambda tx: dependencies.ended(tx, SOURCES))
    for id in ended:
        await ctx.db.write(lambda tx, id=id: generations.release(tx, id, ctx.now()))  # type: ignore[misc]
    return len(ended)
