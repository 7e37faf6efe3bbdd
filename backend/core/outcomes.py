"""What a provider says about a prediction, in our terms, and the webhook that may have brought it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from backend.core.generation import Failure


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a provider says about one prediction, in our terms.

    `outputs` are URLs or data URIs. `outputs_expire_at` is in milliseconds; None means that nobody knows, which is not
    expired. `ref` is what the provider wants to be asked with beside the id. A status that we do not know is `running`:
    the deadline ends it, not a guess. `webhook` is where it reports to, if the provider says so. `predict_s` is how
    long it ran: models without a list price are billed by it. `began` is True when it has begun to run, False when it
    never did and never will, and None when the provider does not say.
    """

    provider_id: str
    state: Literal["running", "succeeded", "failed", "canceled"]
    outputs: tuple[str, ...] = ()
    outputs_expire_at: int | None = None
    progress: float | None = None
    failure: Failure | None = None
    webhook: str | None = None
    predict_s: float | None = None
    began: bool | None = None
    ref: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ProviderWebhook:
    """One webhook that a provider sent. It is kept as it came, before anything is done with it."""

    id: str
    provider: str
    generation_id: str
    webhook_id: str
    body: bytes
    received_at: int
    attempts: int = field(default=0)
