"""One answer to one request, however often it is sent: Idempotency-Key."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from backend.context import AFTER_A_REQUEST, Context
from backend.core.errors import Conflict, InvalidInput
from backend.db import idempotency_keys
from backend.db.connection import Tx

RUNNING_MS = 600_000  # a long request that a crash cut off may be made again after this


@dataclass(frozen=True)
class Idempotency:
    """What names a request: who asks (`scope`), the key it gave, and the SHA-256 of method, path and body.

    `is_meant` is given the body and the time (milliseconds) of a kept answer and says whether this request repeats that
    one. Without it each request with the same name does.
    """

    scope: str
    key: str
    request_hash: str
    is_meant: Callable[[Any, int], bool] | None = None


@dataclass(frozen=True)
class Reply:
    """What is sent back: an HTTP status, and a body that JSON can hold."""

    status: int
    body: Any
    location: str | None = None
    replayed: bool = False


async def once(ctx: Context, repeat: Idempotency | None, work: Callable[[Tx], Awaitable[Reply]]) -> Reply:
    """Do the work and keep its answer in one transaction, or give the answer that was kept.

    Raises InvalidInput when the key was used for another request, Conflict while the first still runs.
    """

    async def transaction(tx: Tx) -> Reply:
        if repeat and (kept := await _kept(tx, ctx, repeat)):
            return kept
        answer = await work(tx)
        if repeat:
            await _keep(tx, ctx, repeat, answer)
        return answer

    answer = await ctx.db.write(transaction)
    # After the commit: a lane that looks before it sees nothing, and sleeps on.
    ctx.wake(*AFTER_A_REQUEST)
    return answer


async def begin(ctx: Context, repeat: Idempotency | None) -> Reply | None:
    """Reserve the key for work that is longer than a transaction, or return the kept answer. Raises as `once`."""
    if repeat is None:
        return None

    async def transaction(tx: Tx) -> Reply | None:
        if kept := await _kept(tx, ctx, repeat):
            return kept
        until = ctx.now() + RUNNING_MS
        await idempotency_keys.put(tx, repeat.scope, repeat.key, repeat.request_hash, ctx.now(), running_until=until)
        return None

    return await ctx.db.write(transaction)


async def finish(ctx: Context, repeat: Idempotency | None, work: Callable[[Tx], Awaitable[Reply]]) -> Reply:
    """Do the last transaction of work that began with `begin`, and keep its answer."""

    async def transaction(tx: Tx) -> Reply:
        answer = await work(tx)
        if repeat:
            await _keep(tx, ctx, repeat, answer)
        return answer

    return await ctx.db.write(transaction)


async def look(ctx: Context, repeat: Idempotency) -> Reply | None:
    """Return the kept answer, if there is one, before work that would be for nothing. Raises as `once`."""
    return await ctx.db.read(lambda tx: _kept(tx, ctx, repeat))


async def renew(ctx: Context, repeat: Idempotency, old: Any, body: Any) -> None:
    """Replace the kept body by another one, if it is still the `old` one. Its three days begin again."""
    await ctx.db.write(
        lambda tx: idempotency_keys.renew(tx, repeat.scope, repeat.key, ctx.now(), _as_text(old), _as_text(body))
    )


async def abandon(ctx: Context, repeat: Idempotency | None) -> None:
    """Free the key again, because the work failed."""
    if repeat:
        await ctx.db.write(lambda tx: idempotency_keys.forget(tx, repeat.scope, repeat.key))


async def _kept(tx: Tx, ctx: Context, repeat: Idempotency) -> Reply | None:
    known = await idempotency_keys.get(tx, repeat.scope, repeat.key)
    if known is None:
        return None
    if known.request_hash != repeat.request_hash:
        raise InvalidInput.of("Idempotency-Key", "was used for another request", code="idempotency_key_reused")
    if known.status is None:
        # A crash leaves the reservation behind: it ends by time.
        if (known.running_until or 0) > ctx.now():
            raise Conflict("The first request with this key is still running.", code="idempotency_key_running")
        return None
    body = json.loads(known.body or "null")
    if repeat.is_meant and not repeat.is_meant(body, known.created_at):
        return None
    return Reply(known.status, body, known.location, replayed=True)


async def _keep(tx: Tx, ctx: Context, repeat: Idempotency, answer: Reply) -> None:
    await idempotency_keys.put(
        tx,
        repeat.scope,
        repeat.key,
        repeat.request_hash,
        ctx.now(),
        status=answer.status,
        body=_as_text(answer.body),
        location=answer.location,
    )


def _as_text(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
