"""Webhooks: the prediction object, signed as Standard Webhooks, sent to whoever asked for it.

Only the final one is sent again when it is not taken, with growing pauses for about a minute. A redirect is
not followed and, as with the real service, ends the matter.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook

from backend.core.errors import NetworkError
from backend.emulator.kit.kinds import Arguments
from backend.emulator.kit.ledger import Attempt
from backend.emulator.kit.predictions import Prediction
from backend.emulator.kit.state import Emulator

_DEFAULT_EVENTS = ("output", "completed")
_WRONG_SECRET = "whsec_" + base64.b64encode(b"not the emulator's secret").decode()


@dataclass(frozen=True)
class Message:
    """One webhook; the same id at every attempt."""

    id: str
    event: str
    url: str
    prediction: Prediction
    body: str

    def fault(self, kind: str) -> Arguments | None:
        """The arguments of a fault of this prediction, when it is about this event."""
        arguments = self.prediction.faults.get(kind)
        if arguments is None or (arguments.get("events") and self.event not in arguments["events"]):
            return None
        return arguments


def announce(emulator: Emulator, prediction: Prediction, event: str) -> None:
    """Sends what the prediction is now, unless nobody asked for this event; does not wait."""
    if prediction.webhook is None or event not in (prediction.events or _DEFAULT_EVENTS):
        return
    body = json.dumps(prediction.as_json(), separators=(",", ":"))
    message = Message(f"msg_{secrets.token_urlsafe(18)}", event, prediction.webhook, prediction, body)
    previous = prediction.last_announcement
    if event == "start" and "webhook_out_of_order" in prediction.faults:
        emulator.spawn(_send_last(emulator, message))
    else:
        prediction.last_announcement = emulator.spawn(_send_after(emulator, message, previous))


async def _send_last(emulator: Emulator, message: Message) -> None:
    await message.prediction.ended.wait()
    await asyncio.sleep(0)  # so the final message is under way and can be waited for
    await _send_after(emulator, message, message.prediction.last_announcement)


async def _send_after(emulator: Emulator, message: Message, previous: asyncio.Task[None] | None) -> None:
    if previous:
        await asyncio.wait({previous}, timeout=2.0)  # keeps the order, but not behind a dead receiver
    if late := message.fault("webhook_late"):
        await asyncio.sleep(late["delay_s"])
    if message.fault("webhook_lost") is not None:
        emulator.ledger.webhooks.append(Attempt(message.prediction.id, message.id, message.event, 0, None))
        return
    await _send_until_taken(emulator, message)
    for _ in range((message.fault("webhook_duplicate") or {"count": 1})["count"] - 1):
        await _attempt(emulator, message, 1)


async def _send_until_taken(emulator: Emulator, message: Message) -> None:
    pauses_s = emulator.options.webhook_delays_s if message.event == "completed" else ()
    for attempt, pause_s in enumerate((*pauses_s, None), start=1):
        status = await _attempt(emulator, message, attempt)
        if (status is not None and status < 400) or pause_s is None:
            return
        await asyncio.sleep(pause_s)


async def _attempt(emulator: Emulator, message: Message, attempt: int) -> int | None:
    try:
        answer = await emulator.http.call(
            "POST",
            message.url,
            headers=_headers(emulator, message),
            content=message.body.encode(),
            total_s=10,
        )
        status: int | None = answer.status
    except NetworkError:
        status = None
    emulator.ledger.webhooks.append(Attempt(message.prediction.id, message.id, message.event, attempt, status))
    return status


def _headers(emulator: Emulator, message: Message) -> dict[str, str]:
    forged = message.fault("webhook_bad_signature") is not None
    secret = _WRONG_SECRET if forged else emulator.options.webhook_secret
    at = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message.id, at, message.body),
    }
