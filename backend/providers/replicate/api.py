"""Replicate's HTTP API (https://api.replicate.com/openapi.json, version 1.0.0-a1, read 2026-11-21)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from backend.core.catalog import ProviderFacts
from backend.core.outcomes import Outcome
from backend.http import HttpAnswer
from backend.providers import reading
from backend.providers.base import Handle, Means, Order, Request
from backend.providers.over_http import HttpProvider
from backend.providers.replicate import answers
from backend.providers.replicate.files import Files
from backend.providers.replicate.predictions import Predictions
from backend.providers.replicate.webhooks import SignedWebhooks

EVENTS = ["start", "completed"]  # without this filter each log line and partial output may be a webhook too


class Replicate(HttpProvider):
    """One account at Replicate, or at whatever speaks its protocol at `base_url`."""

    name = "replicate"

    def __init__(
        self,
        means: Means,
        facts: ProviderFacts,
        *,
        base_url: str,
        token: str,
        secrets: Sequence[str],
        label: str = "",
    ) -> None:
        """`secrets` verify webhooks; without any the account's own is asked for. Raises SettingsError for a bad one."""
        self.label = label
        super().__init__(means, facts, base_url=base_url, headers={"authorization": f"Bearer {token}"})
        self.webhooks = SignedWebhooks(self, secrets)
        self.listing = Predictions(self)
        self.cancellation = self
        self.uploads = Files(self)

    def prepare(self, order: Order) -> Request:
        """POST /models/{owner}/{name}/predictions; `Cancel-After` counts from there, also while it waits to start."""
        # Without `Prefer: wait`: the answer would come with the output inside, as base64, up to a minute later. Until
        # then a lost connection makes the create unclear.
        body: dict[str, Any] = {"input": dict(order.inputs)}
        if order.webhook_url:
            body |= {"webhook": order.webhook_url, "webhook_events_filter": EVENTS}
        return Request.of(f"/models/{quote(order.model)}/predictions", body, cancel_after=f"{order.cancel_after_s}s")

    def created(self, answer: HttpAnswer) -> Outcome:
        """Return the prediction. Raises what an answer that is no success means."""
        if answer.status not in (200, 201, 202):
            raise answers.refusal(answer, self.now())
        return self.read(answer.json())

    def told(self, answer: HttpAnswer) -> Outcome:
        """Return the prediction. Raises what an answer that is no success means."""
        if answer.status >= 300:
            raise answers.trouble(answer, self.now())
        return self.read(answer.json())

    def path_of(self, handle: Handle) -> str:
        """/predictions/{id}."""
        return f"/predictions/{reading.in_path(handle.id)}"

    async def cancel(self, handle: Handle) -> Outcome:
        """POST /predictions/{id}/cancel."""
        return await self.look("POST", handle, "/cancel")

    def read(self, prediction: Any) -> Outcome:
        """Read a prediction as an answer, a list or a webhook shows it. Raises BadAnswer."""
        return answers.outcome(prediction, self.now(), self.facts.output_lifetime_s * 1000)
