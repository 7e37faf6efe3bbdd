"""How many images, videos and webhooks a key may ask for, and how often it may write. The library `limits` counts.

slowapi sets the counters up. Its decorator is not used: it takes 0.1 ms for each limit of each request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import structlog
from limits import RateLimitItem, parse_many
from limits.errors import StorageError
from slowapi import Limiter
from starlette.requests import Request
from starlette.responses import Response

from backend.core.errors import TooManyRequests
from backend.core.generation import Kind
from backend.core.people import Caller
from backend.web.callers.windows import SCHEME

# A webhook is a test or a replay, which call anybody's address; a write is whatever may change something.
Limited = Kind | Literal["webhook", "write"]
REDIS_AGAIN_S = 5.0  # an unreachable Redis is asked again after this; each try may take REDIS_WITHIN_S
REDIS_WITHIN_S = 0.2
PREFIX = "reelhook"  # of every counter: a Redis may be shared with other programs

log = structlog.get_logger("backend.web.callers.limits")


class _Limiter(Limiter):
    """slowapi that reads no settings from the environment or an .env file, which may be of another program."""

    def get_app_config(self, key: str, default_value: Any = None) -> Any:
        return default_value


class Asked(NamedTuple):
    """What one request counts for: the kind that is limited, the limit as text, and whose key it is."""

    kind: Limited
    limit: str
    key_id: str


class Counted(NamedTuple):
    """One limit after a request was counted: what is left, and when all of it is there again (seconds since 1970)."""

    kind: Limited
    limit: str
    item: RateLimitItem
    has_passed: bool
    remaining: int
    reset_at: float

    @property
    def wait_s(self) -> int:
        """Whole seconds until all of it is there again."""
        return max(0, math.ceil(self.reset_at - time.time()))

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell the client."""
        return {
            "RateLimit-Limit": str(self.item.amount),
            "RateLimit-Remaining": str(max(0, self.remaining)),
            "RateLimit-Reset": str(self.wait_s),
            "RateLimit-Policy": f"{self.item.amount};w={self.item.get_expiry()}",
        }


@dataclass
class Limits:
    """The counters of one service: in memory, or in Redis from a thread; in memory while Redis cannot be reached."""

    defaults: Mapping[Limited, str]
    memory: Limiter
    redis: Limiter | None = None
    thread: ThreadPoolExecutor | None = None
    _away_until: float = field(default=0.0, repr=False)

    async def count(self, asked: Sequence[Asked], cost: int = 1) -> list[Counted]:
        """Count a request for each of its limits in turn, and stop at the first that refuses it."""
        if self.redis is not None and time.monotonic() >= self._away_until:
            try:
                # The client of Redis blocks: in the loop each count would hold up every other request.
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self.thread, _count, self.redis, asked, cost)
            except StorageError as error:
                self._away_until = time.monotonic() + REDIS_AGAIN_S
                log.warning("rate_limits_in_memory", why=str(error)[:200], again_in_s=REDIS_AGAIN_S)
        return _count(self.memory, asked, cost)


def build(defaults: Mapping[Limited, str], redis_url: str | None = None) -> Limits:
    """Return counters in memory, or with a URL in Redis, which several processes can share."""
    if redis_url is None:
        return Limits(dict(defaults), _limiter())
    within = {"socket_timeout": REDIS_WITHIN_S, "socket_connect_timeout": REDIS_WITHIN_S}
    redis = _limiter(redis_url, wrap_exceptions=True, **within)
    return Limits(dict(defaults), _limiter(), redis, ThreadPoolExecutor(1, "limits"))


def _limiter(storage_uri: str = f"{SCHEME}://", **options: Any) -> Limiter:
    return _Limiter(key_func=lambda: "", strategy="moving-window", storage_uri=storage_uri, storage_options=options)


def _count(limiter: Limiter, asked: Sequence[Asked], cost: int) -> list[Counted]:
    """Count with one set of counters. Of a limit with several windows the shortest is told, or the one that refuses."""
    strategy, found = limiter.limiter, list[Counted]()
    for kind, limit, key_id in asked:
        windows = _windows(limit)
        refusing = next((item for item in windows if not strategy.hit(item, PREFIX, kind, key_id, cost=cost)), None)
        # What was counted before a refusal stays counted: the library cannot take it back.
        if refusing is None and kind == "write":
            continue  # it is wide: what is left of it is nobody's question
        item = refusing or min(windows)
        reset_at, remaining = strategy.get_window_stats(item, PREFIX, kind, key_id)
        found.append(Counted(kind, limit, item, refusing is None, remaining, reset_at))
        if refusing is not None:
            break
    return found


async def admit(limits: Limits, request: Request, caller: Caller, kinds: Sequence[Limited], cost: int = 1) -> None:
    """Count a request of this key as `cost` requests for each of these limits; all of those are counted or none.

    Raises TooManyRequests with Retry-After when it is too much.
    """
    counted = await limits.count([Asked(kind, _limit(limits, caller, kind), caller.key_id) for kind in kinds], cost)
    if not counted:
        return
    last = counted[-1]
    if not last.has_passed:
        headers = {} if last.kind == "write" else last.headers
        raise TooManyRequests(_why(last, cost), retry_after=max(1, last.wait_s), headers=headers)
    request.state.rate_headers = last.headers


def _limit(limits: Limits, caller: Caller, kind: Limited) -> str:
    """Return the key's own limit if it has a valid one, else the service's."""
    own = {"image": caller.image_limit, "video": caller.video_limit}.get(kind)
    return own if own and is_limit(own) else limits.defaults[kind]


def _why(refusal: Counted, cost: int) -> str:
    if refusal.kind == "write":
        return f"This key may write {refusal.limit}."
    needed = f", and this makes {cost}" if cost > 1 else ""
    return f"This key may ask for {refusal.limit} ({refusal.kind}s){needed}."


def write_headers(request: Request, response: Response) -> None:
    """Tell the client how much is left, on routes that count."""
    for name, value in getattr(request.state, "rate_headers", {}).items():
        response.headers[name] = value


@lru_cache(maxsize=1024)
def _windows(text: str) -> tuple[RateLimitItem, ...]:
    return tuple(parse_many(text))


@lru_cache(maxsize=1024)
def is_limit(text: str) -> bool:
    """Whether a text is a limit such as 30/minute."""
    try:
        return all(item.amount > 0 for item in parse_many(text))
    except ValueError:
        log.warning("rate_limit_malformed", limit=text[:100])
        return False
