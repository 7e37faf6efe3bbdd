"""How much of one client may be unfinished at a time: the queue is everybody's, and one client must not fill it."""

from __future__ import annotations

from backend.context import Context
from backend.core.errors import TooManyRequests
from backend.db import clients
from backend.db.connection import Tx

AGAIN_AFTER_S = 30


async def admit(tx: Tx, ctx: Context, client_id: str, more: int) -> None:
    """Let this client have so many more generations. Raises TooManyRequests when they would be too many.

    Counting a long queue costs as much as accepting a request, so it is counted anew only when what was
    left at the last count is used up: what ended meanwhile can only have made more room.
    """
    left = ctx.room_left.get(client_id, 0) - more
    if left < 0:
        most = ctx.settings.max_unfinished_per_client
        left = most - await clients.count_unfinished(tx, client_id, most) - more
    if left < 0:
        raise TooManyRequests(
            f"This client may have {most} unfinished generations: wait until some have ended.",
            code="too_many_unfinished",
            retry_after=AGAIN_AFTER_S,
        )
    ctx.room_left[client_id] = left
