"""What a generation that ended without a result was charged, when that is learned later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.core.generation import Generation
from backend.db import balances, usage
from backend.db.connection import Tx
from backend.db.generation_rows import COLUMNS, read, written


async def correct(tx: Tx, old: Generation, now: int, bill: Mapping[str, Any], **facts: Any) -> bool:
    """Write another bill for a generation that ended without a result; return False when its bill has changed.

    Its balances and its day of usage follow. What clients are told of its end stays as it was: the event is out, and a
    receiver that is told it again must read the same.
    """
    told = {name: getattr(old, name) for name in bill}
    row = await tx.one(
        f"""
        UPDATE generations SET possibly_charged = :charged, cost_actual_micros = :actual, bill_told = :told,
          provider_id = :provider_id, began_at = :began_at
        WHERE id = :id AND status IN ('failed', 'canceled')
        AND possibly_charged = :was_charged AND COALESCE(cost_actual_micros, -1) = :was_actual
        RETURNING {COLUMNS}
        """,  # noqa: S608
        id=old.id,
        charged=int(bill["possibly_charged"]),
        actual=bill["cost_actual_micros"],
        told=old.bill_told or written(told),
        was_charged=int(old.possibly_charged),
        was_actual=-1 if old.cost_actual_micros is None else old.cost_actual_micros,
        **facts,
    )
    if row is None:
        return False
    await balances.correct(tx, old, read(row), now)
    await usage.correct(tx, old, read(row))
    return True
