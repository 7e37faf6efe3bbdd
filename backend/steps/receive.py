"""Step 3: keep what a provider says by webhook, answer, and act on it afterwards."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping

from backend.context import Context
from backend.core.errors import BadAnswer, InvalidJson, NotFound
from backend.core.ids import is_id
from backend.core.outcomes import Outcome, ProviderWebhook
from backend.db import generations, provider_webhooks
from backend.db.connection import Tx
from backend.logs import times
from backend.providers.base import Webhooks
from backend.steps import inline, outcomes

MOST_ATTEMPTS = 5  # of a webhook that ends the process again and again: then it is set aside
BATCH = 128
LARGE_BYTES = 64 << 10  # a larger body is read in a thread: the loop has others to answer
BITE = 4  # webhooks in one transaction: it stays short for the requests that wait for the writer


def expect(ctx: Context, account: str, headers: Mapping[str, str]) -> None:
    """Look at a webhook's headers before its body is read. Raises NotFound for an unknown provider, or Unauthorized."""
    _webhooks(ctx, account).expect(headers)


async def keep(
    ctx: Context, account: str, generation_id: str, nonce: str, headers: Mapping[str, str], body: bytes
) -> bool:
    """Store a signed webhook and return at once; False when it came before. `headers` are by lower-case name.

    It is acted on later: a provider waits a few seconds for the answer and then sends it again, a minute long at most.
    Raises Unauthorized before anything is looked up, so that a stranger learns nothing; then NotFound.
    """
    word = await _webhooks(ctx, account).verify(headers, body)
    if not is_id(generation_id):
        raise NotFound
    await asyncio.to_thread(_check_body, body) if len(body) > LARGE_BYTES else _check_body(body)
    delivery = ProviderWebhook(ctx.new_id(), account, generation_id, word.id, body, ctx.now())

    async def work(tx: Tx) -> bool:
        ours = await generations.nonce_of(tx, account, generation_id)
        # In constant time: an ordinary comparison tells a stranger how many characters of the nonce are right.
        if ours is None or not hmac.compare_digest(ours.encode(), nonce.encode()):
            raise NotFound
        return await provider_webhooks.insert(tx, delivery)

    # Urgent: the provider waits for the answer, and its last try comes a minute after the end.
    fresh = await ctx.db.write(work, urgent=True)
    ctx.wake("receive")
    return fresh


def _webhooks(ctx: Context, account: str) -> Webhooks:
    """Return what verifies this account's webhooks. Raises NotFound when it is not offered, or sends none."""
    known = ctx.providers.get(account)
    if known is None or known.webhooks is None:
        raise NotFound
    return known.webhooks


async def believe(ctx: Context) -> int:
    """Act on the webhooks that were kept, oldest first; return how many there were."""
    waiting = await ctx.db.read(lambda tx: provider_webhooks.unhandled(tx, BATCH))
    if any(delivery.attempts for delivery in waiting):
        await _believe_each(ctx, waiting)
    elif waiting:
        await _believe_together(ctx, waiting)
    return len(waiting)


async def _believe_together(ctx: Context, waiting: list[ProviderWebhook]) -> None:
    """Act on all at once, the usual way. If one of them ends the process, the next start takes them one by one."""
    await ctx.db.write(lambda tx: provider_webhooks.count_attempts(tx, waiting[-1].id))
    bites = [waiting[start : start + BITE] for start in range(0, len(waiting), BITE)]
    await asyncio.gather(*(_believe_bite(ctx, bite) for bite in bites))


async def _believe_each(ctx: Context, waiting: list[ProviderWebhook]) -> None:
    """Act on one after the other. What breaks off is tried again later, and those behind it do not wait for it."""
    failed: list[BaseException] = []
    for delivery in waiting:
        if delivery.attempts >= MOST_ATTEMPTS:
            await ctx.db.write(
                lambda tx, id=delivery.id: provider_webhooks.mark_handled(tx, id, ctx.now(), "set aside")  # type: ignore[misc]
            )
            continue
        await ctx.db.write(lambda tx, id=delivery.id: provider_webhooks.count_attempt(tx, id))  # type: ignore[misc]
        ended = await asyncio.gather(_believe_bite(ctx, [delivery]), return_exceptions=True)
        failed += [each for each in ended if each is not None]
    if failed:
        raise failed[0]


async def _believe_bite(ctx: Context, bite: list[ProviderWebhook]) -> None:
    """Act on a few in one transaction."""
    said = [await _read(ctx, delivery) for delivery in bite]

    async def work(tx: Tx) -> None:
        for delivery, outcome in zip(bite, said, strict=True):
            note = "not a prediction"
            if outcome is not None:
                note = await outcomes.learn(tx, ctx, delivery.generation_id, outcome)
            await provider_webhooks.mark_handled(tx, delivery.id, ctx.now(), note)

    await ctx.db.write(work)
    for delivery in bite:
        times.HEAR.observe(delivery.provider, (ctx.now() - delivery.received_at) / 1000)


async def _read(ctx: Context, delivery: ProviderWebhook) -> Outcome | None:
    """Return what it says; None when it says nothing of a prediction, or its provider is not offered any more."""
    try:
        outcome = _webhooks(ctx, delivery.provider).read(delivery.body)
    except (BadAnswer, NotFound):
        return None
    return await inline.keep(ctx, delivery.generation_id, outcome)


def _check_body(body: bytes) -> None:
    """Refuse signed junk: what is kept must be text that every database can hold, so without NUL."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJson("The body is not UTF-8.") from error
    try:
        is_object = "\x00" not in text and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise InvalidJson("The body is not a JSON object.")
