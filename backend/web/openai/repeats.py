"""Which requests repeat an earlier one.

The SDK sends a POST again by itself when it saw no answer, a 409, 429 or 5xx. It says so in `x-stainless-retry-count`,
and sends no Idempotency-Key. Two equal requests on purpose both have the count 0, and are two requests, unless what was
made for the first is still `owed`: nobody was given it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from backend.manage.idempotency import Idempotency
from backend.web.calls import replies
from backend.web.calls.operation import Call

RETRY_MS = 1_260_000  # two answers that never came, which the SDK awaits for 600 s each, and a little
BARE_MS = 60_000  # of a sender that does not count: who repeats that soon saw no answer


def name_of(call: Call, content: str) -> Idempotency:
    """Return what this request is recognised by: its Idempotency-Key, else its key, route and content.

    Call it before anything is done for the request: by its time it is seen whether a repeat came in between.
    """
    text = f"{call.request.method}\n{call.request.scope['path']}\n{call.request.url.query}\n{content}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    scope = replies.scope_of(call.who)
    if call.idempotency_key is not None:
        return Idempotency(scope, call.idempotency_key, digest)
    own = hashlib.sha256(f"{call.who.key_id}\n{text}".encode()).hexdigest()
    # No Idempotency-Key can begin with a space: nobody can name this one.
    return Idempotency(scope, f" {own}", digest, _rule(_count(call), call.ctx.now()))


def is_retry(call: Call) -> bool:
    """Whether the sender says that it sent this request before."""
    return bool(_count(call))


def _count(call: Call) -> int | None:
    given = call.request.headers.get("x-stainless-retry-count", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 4 else None


def _rule(count: int | None, arrived: int) -> Callable[[Any, int], bool]:
    def is_meant(kept: Any, at: int) -> bool:
        if count or kept.get("owed"):  # what nobody was given yet, whoever asks for it
            return at > arrived - RETRY_MS
        if count is None:
            return at > arrived - BARE_MS
        # A first one that took so long that its own repeat overtook it: the two are one.
        return at >= arrived and bool(kept["by_retry"])

    return is_meant
