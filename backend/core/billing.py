"""Judge whether what ended without a result may be billed: this is the only place that does. Pure.

What may have been billed counts until the provider itself says otherwise. So free is only what certainly never left,
what the provider refused, what it says never began, and what it is known not to bill. A judge that trusts a guess can
be used against the budget: whoever cancels after the start would have made it for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from backend.core.generation import LOCAL, STORING, Generation
from backend.core.models import Model

Ended = Literal["succeeded", "failed", "canceled"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What we know of a generation that ended without a result."""

    was_sent: bool  # a byte of its create may have left
    was_refused: bool = False  # the provider's answer says that it took nothing
    ended: Ended | None = None  # the provider's last word; None: there was none
    began: bool | None = None  # it ran; False by the provider's own word; None: nobody knows
    billed_micros: int | None = None  # the provider's own word on what it costs
    on_cancel: str = "unknown"
    on_failure: str = "unknown"


def may_be_billed(facts: Facts) -> bool:
    """Return whether it counts as billed. What nobody knows counts."""
    if not facts.was_sent or facts.was_refused:
        return False
    if facts.billed_micros is not None:
        return facts.billed_micros > 0
    if facts.ended in (None, "succeeded"):
        return True
    if facts.began is False:
        return False
    return (facts.on_cancel if facts.ended == "canceled" else facts.on_failure) != "free"


def judge(
    row: Generation,
    model: Model | None,
    ended: Ended | None = None,
    *,
    began: bool | None = None,
    predict_s: float | None = None,
    was_refused: bool = False,
) -> dict[str, Any]:
    """Return the columns to write when this row ends without a result; `began` and `predict_s` as it told.

    When the row was about to fetch its output, the provider's last word is known: it succeeded.
    """
    billed = billed_micros(row, model, predict_s)
    facts = Facts(
        was_sent=row.claimed_at is not None and row.provider != LOCAL,
        was_refused=was_refused,
        ended="succeeded" if row.status == STORING else ended,
        began=True if row.began_at is not None else began,
        billed_micros=billed,
        on_cancel=model.on_cancel if model else "unknown",
        on_failure=model.on_failure if model else "unknown",
    )
    return {"possibly_charged": may_be_billed(facts), "cost_actual_micros": billed}


def billed_micros(row: Generation, model: Model | None, predict_s: float | None) -> int | None:
    """Return what the provider says it bills, in millionths of a dollar, now or before; None when it does not say."""
    billed = model.billed_micros(predict_s, row.params, row.source) if model else None
    return row.cost_actual_micros if billed is None else billed
