"""Waiting for generations, with their progress told to the client of the tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mcp.server.mcpserver import Context

from reelhook import AsyncClient, Generation, ReelhookError, WaitTimedOut

LOOK_S = 0.25


class Standing:
    """How several generations stand, and what the client was told of it."""

    def __init__(self, rows: Sequence[Generation]) -> None:
        self.rows = {row.id: row for row in rows}
        self._told: tuple[float, str] | None = None
        self._most = 0.0

    @property
    def is_final(self) -> bool:
        """Whether nothing is left to wait for."""
        return all(row.is_final for row in self.rows.values())

    def note(self, row: Generation) -> None:
        """Take the newest state of one generation."""
        self.rows[row.id] = row

    async def tell(self, ctx: Context) -> None:
        """Report progress when it has changed. It never goes back: the protocol demands that."""
        each = [1.0 if row.is_final else row.progress or 0.0 for row in self.rows.values()]
        self._most = max(self._most, sum(each) / len(each))
        now = round(self._most, 3), ", ".join(f"{row.kind} {row.id} {row.stage}" for row in self.rows.values())
        if now != self._told:
            self._told = now
            await ctx.report_progress(now[0], 1.0, now[1])


async def wait_for(
    service: AsyncClient, rows: Sequence[Generation], wait_s: float, ctx: Context, is_stopping: Callable[[], bool]
) -> list[Generation]:
    """Return the generations when they have ended, or as they are when the time is over or the process stops."""
    standing = Standing(rows)
    if wait_s <= 0 or standing.is_final:
        return list(rows)
    tasks = [asyncio.create_task(_follow(service, row, wait_s, standing)) for row in rows if not row.is_final]
    try:
        running = set(tasks)
        while running and not is_stopping():
            await standing.tell(ctx)
            _, running = await asyncio.wait(running, timeout=LOOK_S)
        await standing.tell(ctx)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [standing.rows[row.id] for row in rows]


async def _follow(service: AsyncClient, row: Generation, wait_s: float, standing: Standing) -> None:
    """Note each change of one generation. It was accepted: so trouble on the way does not mean that it failed."""
    try:
        standing.note(await service.wait(row, timeout=wait_s, on_progress=standing.note))
    except WaitTimedOut:
        pass  # it goes on, and so it is told
    except ReelhookError:
        pass  # the service does not answer for a long while: the last known state is told
