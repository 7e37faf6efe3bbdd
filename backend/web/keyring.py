"""API keys checked: at most one bcrypt comparison a request, and none for a key seen a moment ago."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import bcrypt
import structlog

from backend.errors import Unauthorized, Unavailable
from backend.model import ApiKey
from backend.steps.own import COST
from backend.web.attempts import Attempts

FORM = re.compile(r"sk_[A-Za-z0-9_-]{43}")
PREFIX = slice(3, 15)
_MAX_COST = 14  # a row with more would keep a core busy for seconds
_REMEMBER_S = 3600.0  # since it was last used: a flood of bad keys from its own address does not shut out a key at work
_MAX_REMEMBERED = 10_000
_MAX_WAITING = 64
_HASH = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")

log = structlog.get_logger("backend.web.keyring")


class Keyring:
    """Finds the row of a key and checks the key against it.

    `find` takes the public prefix; it is called for every request, so a revoked key dies at once.
    `now` is the time in milliseconds that rows are written in.
    """

    def __init__(
        self,
        find: Callable[[str], Awaitable[ApiKey | None]],
        now: Callable[[], int],
        *,
        cost: int = COST,
        attempts: Attempts | None = None,
    ) -> None:
        self._find = find
        self._now = now
        self._dummy = f"$2b${cost:02d}$" + "." * 53  # well formed, matches nothing, costs the same
        self._attempts = attempts or Attempts()
        # Its own threads: a flood of bad keys must not keep file reads waiting.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="bcrypt", initializer=_give_way)
        self._checking: Counter[bytes] = Counter()
        self._remembered: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._running: dict[tuple[bytes, str], asyncio.Task[bool]] = {}

    async def check(self, key: str, address: str) -> ApiKey:
        """The row of a valid key; Unauthorized for any other, TooManyRequests for an address that guesses."""
        if not FORM.fullmatch(key):
            self._attempts.begin(address)
            raise Unauthorized
        digest = hashlib.sha256(key.encode()).digest()
        known = self._recall(digest)
        if known is not None:
            return self._usable(await self._find(key[PREFIX]), known, digest)
        # A burst with one key is one guess: after a start nobody's key is remembered.
        began = None if digest in self._checking else self._attempts.begin(address)
        with self._place(digest):
            row = await self._find(key[PREFIX])
            against = row.hash if row is not None else self._dummy
            if not await self._compare(key, against, digest):
                raise Unauthorized
        row = self._usable(row, against, digest)
        if began is not None:
            self._attempts.forgive(address, began)
        self._remember(digest, against)
        return row

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _usable(self, row: ApiKey | None, matched: str, digest: bytes) -> ApiKey:
        """The row, if it still holds the hash the key matched and is in force."""
        stands = row is not None and row.hash == matched and row.revoked_at is None
        if row is not None and stands and (row.expires_at is None or row.expires_at > self._now()):
            return row
        self._remembered.pop(digest, None)
        raise Unauthorized

    def _recall(self, digest: bytes) -> str | None:
        """The hash this key matched; that never changes, and the row is read anew at every request."""
        known, until = self._remembered.get(digest, ("", 0.0))
        if until > time.monotonic():
            self._remember(digest, known)
            return known
        self._remembered.pop(digest, None)
        return None

    def _remember(self, digest: bytes, matched: str) -> None:
        self._remembered[digest] = (matched, time.monotonic() + _REMEMBER_S)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    @contextmanager
    def _place(self, digest: bytes) -> Iterator[None]:
        """One of the few that are checked at a time, before the database is asked; the same key needs one for all."""
        if digest not in self._checking and len(self._checking) >= _MAX_WAITING:
            raise Unavailable("Too many keys are being checked.", retry_after=1)
        self._checking[digest] += 1
        try:
            yield
        finally:
            self._checking[digest] -= 1
            if not self._checking[digest]:
                del self._checking[digest]

    async def _compare(self, key: str, against: str, digest: bytes) -> bool:
        """One comparison for all requests that wait for the same one; it goes on if one of them leaves."""
        about = (digest, against)
        task = self._running.get(about)
        if task is None:
            if len(self._running) >= _MAX_WAITING:
                raise Unavailable("Too many keys are being checked.", retry_after=1)
            task = self._running[about] = asyncio.create_task(self._run(key, against))
            task.add_done_callback(lambda _: self._running.pop(about, None))
        return await asyncio.shield(task)

    async def _run(self, key: str, against: str) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._pool, matches, key, against)


def _give_way() -> None:
    """Let the threads that compare come second, and not last: new keys wait for them. A thread has its own on Linux."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)


def matches(key: str, against: str) -> bool:
    """Whether bcrypt agrees. A row that holds no bcrypt hash fits no key and is reported."""
    try:
        form = _HASH.fullmatch(against)
        if form is None or int(form[1]) > _MAX_COST:
            raise ValueError("not a bcrypt hash of a sane cost")
        return bcrypt.checkpw(key.encode(), against.encode())
    except (ValueError, TypeError, AttributeError):
        log.warning("key_hash_malformed", prefix=key[PREFIX])
        return False
