"""How many generations of one client may be unfinished: all clients share the queue, and one must not fill it."""

from __future__ import annotations

from backend.context import Context
from backend.core.errors import TooManyRequests
from backend.db import balances
from backend.db.connection import Tx

AGAIN_AFTER_S = 30


async def admit(tx: Tx, ctx: Context, client_id: str, more: int) -> None:
    """Let this client have so many more generations. Raises TooManyRequests when they would be too many."""
    most = ctx.settings.max_unfinished_per_client
    if await balances.unfinished(tx, client_id) + more > most:
        raise TooManyRequests(
            f"This client may have {most} unfinished generations: wait until some have ended.",
            code="too_many_unfinished",
            retry_after=AGAIN_AFTER_S,
        )
