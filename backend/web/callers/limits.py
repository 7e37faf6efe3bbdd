"""How often a key may ask for images, videos and webhooks, and write at all: slowapi counts, these are the rules."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar

import structlog
from limits import RateLimitItem, parse_many
from limits.errors import StorageError
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from starlette.requests import Request
from starlette.responses import Response

from backend.core.errors import TooManyRequests
from backend.core.generation import Kind
from backend.core.people import Caller

T = TypeVar("T")
# A webhook is a test or a replay, which call anybody's address; a write is whatever may change something.
Limited = Kind | Literal["webhook", "write"]
Gate = Callable[[Request], None]

log = structlog.get_logger("backend.web.callers.limits")


class _Limiter(Limiter):
    """slowapi without its habit of reading settings from the environment and a .env file."""

    def get_app_config(self, key: str, default_value: Any = None) -> Any:
        return default_value


@dataclass(frozen=True)
class Limits:
    """The counters of one service. `thread` is set when counting means asking Redis."""

    limiter: Limiter
    gates: Mapping[Limited, Gate]
    defaults: Mapping[Limited, str]
    thread: ThreadPoolExecutor | None


def build(defaults: Mapping[Limited, str], redis_url: str | None = None) -> Limits:
    """Counters in memory, or in Redis for several processes; without Redis for a while, in memory.

    One thread asks Redis: slowapi is synchronous and keeps the request it works on in one place.
    """
    redis: dict[str, Any] = {
        "storage_uri": redis_url,
        "storage_options": {"socket_timeout": 0.2, "socket_connect_timeout": 0.2, "wrap_exceptions": True},
        "in_memory_fallback_enabled": True,
    }
    limiter = _Limiter(
        key_func=_key,
        strategy="moving-window",
        key_style="endpoint",
        headers_enabled=False,
        key_prefix="reelhook",
        **(redis if redis_url else {"storage_options": {}}),
    )
    gates: dict[Limited, Gate] = {kind: _gate(limiter, kind) for kind in defaults}
    return Limits(limiter, gates, dict(defaults), ThreadPoolExecutor(1, "limits") if redis_url else None)


def _gate(limiter: Limiter, kind: Limited) -> Gate:
    """A decorated function that does nothing: passing it is what counts.

    The count is shared by all routes of a kind, so a second route to it is no second budget.
    """

    @limiter.shared_limit(_limit_in, scope=kind, cost=_cost)
    def gate(request: Request) -> None:
        return None

    gated: Gate = gate
    return gated


def _key(request: Request) -> str:
    return f"{request.state.limited_by} {request.state.limited_to}"


def _cost(request: Request) -> int:
    return int(request.state.limited_cost)


def _limit_in(key: str) -> str:
    """slowapi hands a limit's source the key alone, so the limit travels in it."""
    return key.partition(" ")[2]


# slowapi asks for the signature at every request; one that is written down is found 20 times faster.
_limit_in.__signature__ = inspect.signature(_limit_in)  # type: ignore[attr-defined]


async def admit(limits: Limits, request: Request, caller: Caller, kind: Limited, cost: int = 1) -> None:
    """Count one request of this key, or what counts as so many: all or none of them.

    Raises TooManyRequests with Retry-After when it is too much.
    """
    if kind == "write" and limits.thread is None:
        _count_write(limits, caller.key_id)
        return
    own = {"image": caller.image_limit, "video": caller.video_limit}.get(kind)
    request.state._rate_limiting_complete = False  # slowapi counts once a request; this may be the second limit of it
    request.state.limited_by = caller.key_id
    request.state.limited_to = own if own and is_limit(own) else limits.defaults[kind]
    request.state.limited_cost = cost
    try:
        await _call(limits, limits.gates[kind], request)
    except RateLimitExceeded:
        headers, wait_s = await _call(limits, _describe, limits.limiter, request)
        needed = f", and this makes {cost}" if cost > 1 else ""
        raise TooManyRequests(
            f"This key may ask for {request.state.limited_to} ({kind}s){needed}.",
            retry_after=max(1, wait_s),
            headers=headers,
        ) from None
    if kind != "write":  # it is wide: what is left of it is nobody's question
        request.state.rate_headers = (await _call(limits, _describe, limits.limiter, request))[0]


def _count_write(limits: Limits, key_id: str) -> None:
    """Count without slowapi, which takes 0.1 ms a time, thirty times what counting in memory does."""
    counter = limits.limiter.limiter
    for item in _items(limits.defaults["write"]):
        if not counter.hit(item, "write", key_id):
            reset_at, _ = counter.get_window_stats(item, "write", key_id)
            wait_s = max(1, math.ceil(reset_at - time.time()))
            raise TooManyRequests(f"This key may write {limits.defaults['write']}.", retry_after=wait_s)


@lru_cache(maxsize=8)
def _items(text: str) -> tuple[RateLimitItem, ...]:
    return tuple(parse_many(text))


async def _call(limits: Limits, ask: Callable[..., T], *args: Any) -> T:
    if limits.thread is None:
        return ask(*args)
    inside = partial(contextvars.copy_context().run, ask, *args)
    return await asyncio.get_running_loop().run_in_executor(limits.thread, inside)


def _describe(limiter: Limiter, request: Request) -> tuple[dict[str, str], int]:
    """The RateLimit headers and the seconds until one more request is allowed."""
    counted: tuple[RateLimitItem, list[str]] | None = request.state.view_rate_limit
    if counted is None:
        return {}, 1
    item, key = counted
    try:
        reset_at, remaining = limiter.limiter.get_window_stats(item, *key)
    except StorageError:  # Redis went away between counting and asking: the count is what matters
        return {}, 1
    wait_s = max(0, math.ceil(reset_at - time.time()))
    return {
        "RateLimit-Limit": str(item.amount),
        "RateLimit-Remaining": str(max(0, remaining)),
        "RateLimit-Reset": str(wait_s),
        "RateLimit-Policy": f"{item.amount};w={item.get_expiry()}",
    }, wait_s


def write_headers(request: Request, response: Response) -> None:
    """Tell the client how much is left, on the routes that count."""
    for name, value in getattr(request.state, "rate_headers", {}).items():
        response.headers[name] = value


@lru_cache(maxsize=1024)
def is_limit(text: str) -> bool:
    """Whether this is a limit such as 30/minute."""
    try:
        return all(item.amount > 0 for item in parse_many(text))
    except ValueError:
        log.warning("rate_limit_malformed", limit=text[:100])
        return False
