"""`reelhook watch` without ids: every event as it comes, until somebody stops it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from backend.cli.output import json_text, plain
from backend.cli.remote import Address

if TYPE_CHECKING:
    from reelhook import Event


def tell(address: Address, campaign: str | None, client: str | None, *, json: bool) -> None:
    """Print events until Ctrl-C or SIGTERM: a line each, or one document whose `items` grow."""
    try:
        asyncio.run(_tell(address, campaign, client, json))
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _tell(address: Address, campaign: str | None, client: str | None, json: bool) -> None:
    listening = asyncio.ensure_future(_listen(address, campaign, client, json))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, listening.cancel)
    _print('{"items": [\n' if json else "")
    try:
        await listening
    except asyncio.CancelledError:
        pass  # that is how it ends
    finally:
        _print("]}\n" if json else "")


async def _listen(address: Address, campaign: str | None, client: str | None, json: bool) -> None:
    comma = ""
    async with address.open() as service, aclosing(service.events(campaign_id=campaign, client_id=client)) as events:
        async for event in events:
            _print(comma + json_text(event.raw) + "\n" if json else plain(_line(event)) + "\n")
            comma = ","


def _line(event: Event) -> str:
    at = event.created_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    about = event.generation
    if about is None:
        return f"{at} {event.type} {json_text(event.data)}"
    more = f" {about.progress:.0%}" if about.progress is not None and not about.is_final else ""
    reason = f": {about.error.message}" if about.error else ""
    return f"{at} {event.type} {about.kind} {about.id}{more}{reason}"


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
