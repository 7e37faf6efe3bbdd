"""Answers as HTTP responses, and what an Idempotency-Key stands for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from backend.core.people import Caller
from backend.db.connection import Tx
from backend.manage import idempotency
from backend.manage.idempotency import Idempotency, Reply
from backend.web.calls.operation import Call


def json_reply(body: Any, status: int = 200) -> Response:
    """Return an answer in JSON, compact and in UTF-8."""
    return Response(json_text(body), status, media_type="application/json")


def json_text(body: Any) -> bytes:
    """Return the bytes of an answer in JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def reply(answer: Reply) -> Response:
    """Return the response for what a step answered, now or before."""
    response = Response(status_code=204) if answer.status == 204 else json_reply(answer.body, answer.status)
    if answer.location:
        response.headers["location"] = answer.location
    if answer.replayed:
        response.headers["idempotent-replayed"] = "true"
    return response


async def once(
    call: Call, work: Callable[[Tx], Awaitable[Reply]], shown_once: Mapping[str, Any] | None = None
) -> Response:
    """Do the work of a POST in one transaction, once for its Idempotency-Key.

    `shown_once` is a secret that is added to the first answer; it is not kept, so a repeated request does not show it.
    """
    answer = await idempotency.once(call.ctx, name_of(call), work)
    return reply(answer if answer.replayed or not shown_once else replace(answer, body={**answer.body, **shown_once}))


def name_of(call: Call, content: str = "") -> Idempotency | None:
    """Return what the request's Idempotency-Key stands for: this caller, this route, this body."""
    if call.idempotency_key is None:
        return None
    # Sorted: the same request written with its fields in another order is the same request.
    body = content if call.given is None else json.dumps(call.given, sort_keys=True)
    text = f"{call.request.method}\n{call.request.scope['path']}\n{call.request.url.query}\n{body}"
    return Idempotency(scope_of(call.who), call.idempotency_key, hashlib.sha256(text.encode()).hexdigest())


def scope_of(who: Caller) -> str:
    """Return the scope of Idempotency-Keys: the keys of a client share theirs, an admin key has its own."""
    return f"key:{who.key_id}" if who.admin else f"client:{who.client_id}"
