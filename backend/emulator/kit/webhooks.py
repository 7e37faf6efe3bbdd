"""Webhooks: what a run is now, sent to whoever asked for it, as the provider's description says and signs it.

Insistent ones are sent again when they are not taken, with growing pauses for about a minute. A redirect is not
followed and, as with the real services, ends the matter.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import replace

from backend.core.errors import NetworkError
from backend.emulator.kit.fault_kinds import Arguments
from backend.emulator.kit.ledger import Attempt
from backend.emulator.kit.provider import Message
from backend.emulator.kit.runs import Run
from backend.emulator.kit.state import Emulator


def announce(emulator: Emulator, run: Run, event: str) -> None:
    """Sends what the run is now, unless nobody asked for this event; does not wait."""
    webhooks = emulator.provider.webhooks
    if webhooks is None or run.webhook is None or event not in (run.events or webhooks.default_events):
        return
    body = json.dumps(webhooks.body(run), separators=(",", ":"))
    message = Message(f"msg_{secrets.token_urlsafe(18)}", event, run.webhook, run, body)
    if event == "start" and "webhook_out_of_order" in run.faults:
        emulator.spawn(_send_last(emulator, message))
    else:
        run.last_announcement = emulator.spawn(_send_after(emulator, message, run.last_announcement))


async def _send_last(emulator: Emulator, message: Message) -> None:
    await message.run.ended.wait()
    await asyncio.sleep(0)  # so the final message is under way and can be waited for
    await _send_after(emulator, message, message.run.last_announcement)


async def _send_after(emulator: Emulator, message: Message, previous: asyncio.Task[None] | None) -> None:
    if previous:
        await asyncio.wait({previous}, timeout=2.0)  # keeps the order, but not behind a dead receiver
    if late := _fault(message, "webhook_late"):
        await asyncio.sleep(late["delay_s"])
    if _fault(message, "webhook_lost") is not None:
        emulator.ledger.webhooks.append(Attempt(message.run.id, message.id, message.event, 0, None))
        return
    await _send_until_taken(emulator, message)
    for _ in range((_fault(message, "webhook_duplicate") or {"count": 1})["count"] - 1):
        await _attempt(emulator, message, 1)


def _fault(message: Message, kind: str) -> Arguments | None:
    """The arguments of a fault of this run, when it is about this event."""
    arguments = message.run.faults.get(kind)
    if arguments is None or (arguments.get("events") and message.event not in arguments["events"]):
        return None
    return arguments


async def _send_until_taken(emulator: Emulator, message: Message) -> None:
    webhooks = emulator.provider.webhooks
    is_insistent = webhooks is not None and message.event in webhooks.insistent
    pauses_s = emulator.options.webhook_delays_s if is_insistent else ()
    for attempt, pause_s in enumerate((*pauses_s, None), start=1):
        status = await _attempt(emulator, message, attempt)
        if (status is not None and status < 400) or pause_s is None:
            return
        await asyncio.sleep(pause_s)


async def _attempt(emulator: Emulator, message: Message, attempt: int) -> int | None:
    headers, body = _headers(emulator, message), message.body.encode()
    status: int | None = None
    try:
        status = (await emulator.http.call("POST", message.url, headers=headers, content=body, total_s=10)).status
    except NetworkError:
        pass  # the ledger says that no answer came
    emulator.ledger.webhooks.append(Attempt(message.run.id, message.id, message.event, attempt, status))
    return status


def _headers(emulator: Emulator, message: Message) -> dict[str, str]:
    """Signs a message; a forged one gets the signature of another body, which is wrong in every provider's scheme."""
    forged = _fault(message, "webhook_bad_signature") is not None
    signed = replace(message, body=message.body + " ") if forged else message
    webhooks = emulator.provider.webhooks
    return webhooks.headers(signed, emulator.webhook_secret) if webhooks else {}
