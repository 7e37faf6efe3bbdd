"""How much a client may keep here. It is asked before something is accepted, and reserved before bytes are read.

What was paid for is never refused: a result is stored and counted, whatever room there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.context import Context
from backend.core.errors import ClientFull, Conflict
from backend.db import holdings
from backend.db.connection import Tx
from backend.db.holdings import Held

MOST_CAMPAIGNS = 10_000  # a longer list helps nobody, and each is a balance and lines of every report
MOST_ASSETS = 100_000
GB = 1_000_000_000


async def admit(tx: Tx, ctx: Context, client_id: str, *, campaigns: int = 0, assets: int = 0) -> None:
    """Let this client have something more.

    Raises ClientFull when it keeps all that it may, Conflict for too many rows. One row is read and nothing is written:
    what is written afterwards counts itself.
    """
    held = await holdings.get(tx, client_id)
    if held.bytes >= limit_bytes(ctx):
        raise full(ctx)
    _check_rows(held, campaigns, assets)


def _check_rows(held: Held, campaigns: int, assets: int) -> None:
    if campaigns and held.campaigns + campaigns > MOST_CAMPAIGNS:
        raise Conflict(f"A client may have {MOST_CAMPAIGNS:,} campaigns: delete some first.", code="too_many_campaigns")
    if assets and held.assets + assets > MOST_ASSETS:
        raise Conflict(f"A client may have {MOST_ASSETS:,} assets: delete some first.", code="too_many_assets")


@asynccontextmanager
async def reserved(ctx: Context, client_id: str, most: int, *, least: int = 1) -> AsyncIterator[int]:
    """Keep room for an asset of `most` bytes free until the block ends.

    Yields how many bytes there are, `least` or more. Raises ClientFull, Conflict. What others reserved is added up
    before the row is read: so bytes that one of them stores meanwhile are counted twice for a moment, and never missed.
    """
    others = ctx.reserved_bytes.get(client_id, 0)
    ctx.reserved_bytes[client_id] = others + most
    mine = most
    try:
        held = await ctx.db.read(lambda tx: holdings.get(tx, client_id))
        _check_rows(held, 0, 1)
        room = min(most, limit_bytes(ctx) - held.bytes - others)
        if room < least:
            raise full(ctx)
        _give_back(ctx, client_id, mine - room)
        mine = room
        yield room
    finally:
        _give_back(ctx, client_id, mine)


def limit_bytes(ctx: Context) -> int:
    """Return how many bytes a client may keep."""
    return int(ctx.settings.max_client_gb * GB)


def _give_back(ctx: Context, client_id: str, size: int) -> None:
    left = ctx.reserved_bytes[client_id] - size
    if left:
        ctx.reserved_bytes[client_id] = left
    else:
        ctx.reserved_bytes.pop(client_id, None)


def full(ctx: Context) -> ClientFull:
    """Return the refusal for a client without room."""
    return ClientFull(f"A client may keep {ctx.settings.max_client_gb:g} GB here, and no more fits: delete something.")
