"""Whether what ended without a result may be billed: the one place that judges it. Pure.

Whatever may have been billed counts, until the provider's own word says otherwise. So free is only what certainly
never left us, what the provider refused, what it says never began, and what it is known not to bill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from backend.core.generation import STORING, Generation
from backend.core.models import Model

Ended = Literal["succeeded", "failed", "canceled"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a generation that ended without a result."""

    was_sent: bool  # a byte of its create may have left
    was_refused: bool = False  # the provider's answer says that it took nothing
    ended: Ended | None = None  # the provider's last word; None: there was none
    began: bool | None = None  # it ran; False by the provider's own word; None: nobody knows
    billed_micros: int | None = None  # the provider's own word on what it costs
    on_cancel: str = "unknown"
    on_failure: str = "unknown"


def may_be_billed(facts: Facts) -> bool:
    """Whether it counts; what nobody knows does."""
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
    """The columns to write when this row ends without a result; `began` and `predict_s` as the provider tells.

    Of a row whose output was to be fetched the last word is known: it succeeded.
    """
    billed = billed_micros(row, model, predict_s)
    facts = Facts(
        was_sent=row.claimed_at is not None,
        was_refused=was_refused,
        ended="succeeded" if row.status == STORING else ended,
        began=True if row.began_at is not None else began,
        billed_micros=billed,
        on_cancel=model.on_cancel if model else "unknown",
        on_failure=model.on_failure if model else "unknown",
    )
    return {"possibly_charged": may_be_billed(facts), "cost_actual_micros": billed}


def billed_micros(row: Generation, model: Model | None, predict_s: float | None) -> int | None:
    """What the provider says it bills, now or before; None when it does not say."""
    billed = model.billed_micros(predict_s, row.params, row.source) if model else None
    return row.cost_actual_micros if billed is None else billed
