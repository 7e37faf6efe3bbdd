"""Stored files that no row names, as a crash between file and commit leaves them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from backend.context import Context
from backend.core.ids import floor_id, is_id
from backend.db import (
    operations,
    restores,
)

BITE = 50  # names looked up at a time
MOST_ORPHANS = 200
SETTLE_S = 60.0


@dataclass(frozen=True)
class Swept:
    """How many stored files no row names, how many were removed, and how many were kept as older than a restore."""

    unknown: int
    removed: int
    kept: int = 0

    @property
    def trusted(self) -> bool:
        """False when there were so many that the database may be the wrong one: then all were kept."""
        return self.unknown == self.removed + self.kept


async def sweep_orphans(ctx: Context) -> Swept:
    """Remove, after a start, the stored files that no row names.

    A crash leaves a few dozen. More of them, or nothing but them, means that this is another database: nothing is
    removed. A file that is older than the last restore is never removed: its row may be what the backup lacked, and it
    was paid for.
    """
    names = [name async for name in ctx.store.names() if is_id(name[:36])]
    unknown: list[str] = []
    for start in range(0, len(names), BITE):
        bite = names[start : start + BITE]
        unknown += await ctx.db.read(lambda tx, bite=bite: operations.without_row(tx, bite))  # type: ignore[misc]
    if unknown and (len(unknown) > MOST_ORPHANS or len(unknown) == len(names)):
        return Swept(len(unknown), 0)
    if unknown:
        await asyncio.sleep(SETTLE_S)  # one that was stored while we looked has its row by then
        unknown = await ctx.db.read(lambda tx: operations.without_row(tx, unknown))
    restored_at = await ctx.db.read(restores.last)
    oldest = floor_id(restored_at or 0)
    removed = [name for name in unknown if name >= oldest]
    await ctx.store.delete_all(removed)
    return Swept(len(unknown), len(removed), len(unknown) - len(removed))
