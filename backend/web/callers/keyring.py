"""API keys checked. bcrypt is used only for a key that may well be right, and for none that was seen a moment ago.

Somebody who guesses does not hurt those who share the address: the failures of an address decide how its next bad key
is refused, never whether a key is checked. A key that is surely wrong (no row, another fingerprint) costs no
comparison. Its refusal takes as long as a comparison does, so that the time tells nothing.
"""

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
from typing import NamedTuple

import bcrypt
import structlog

from backend.core.errors import ReelhookError, TooManyRequests, Unauthorized, Unavailable
from backend.core.people import ApiKey
from backend.manage.keys import COST, fingerprint
from backend.media import threads
from backend.web.callers.attempts import Attempts

FORM = re.compile(r"sk_[A-Za-z0-9_-]{43}")
PREFIX = slice(3, 15)
_MAX_COST = 14  # a row with more would keep a core busy for seconds
_REMEMBER_S = 3600.0  # since it was last used: a flood of bad keys from its own address does not shut out a key at work
_MAX_REMEMBERED = 10_000
_MAX_WAITING = 64
_AT_ONCE = 2
# Of keys without a fingerprint: whoever knows a prefix gets this far, so these never fill the places of all others.
_MAX_DOUBTFUL = 32
_MAX_OF_ONE_PREFIX = 8
_HASH = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")

log = structlog.get_logger("backend.web.callers.keyring")


class Comparison(NamedTuple):
    """A key, by its digest, and the hash it is compared with. `likely` says that its fingerprint is right."""

    digest: bytes
    against: str
    likely: bool


class Keyring:
    """Finds the row of a key and checks the key against it.

    `find` returns the row of a public prefix. It is called for every request, so a revoked key is refused at once.
    `now` is the time in milliseconds, as rows have it. `learn` stores the fingerprint of a key that is older than
    fingerprints.
    """

    def __init__(
        self,
        find: Callable[[str], Awaitable[ApiKey | None]],
        now: Callable[[], int],
        *,
        cost: int = COST,
        attempts: Attempts | None = None,
        learn: Callable[[str, int], Awaitable[None]] | None = None,
    ) -> None:
        self._find = find
        self._now = now
        self._learn = learn
        self._dummy = f"$2b${cost:02d}$" + "." * 53  # well formed, matches nothing, costs the same
        self._usual_s = 0.06 * 2.0 ** (cost - 10)  # what a comparison takes, from its request to its end
        self._attempts = attempts or Attempts()
        # Its own threads: comparisons must not keep file reads waiting.
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bcrypt", initializer=_give_way)
        threads.fill(self._pool, _AT_ONCE)
        self._checking: Counter[bytes] = Counter()
        self._remembered: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._running: dict[Comparison, asyncio.Task[bool]] = {}
        self._pretending: asyncio.Task[bool] | None = None
        self._learning: set[asyncio.Task[None]] = set()

    async def check(self, key: str, address: str) -> ApiKey:
        """Return the row of a valid key.

        Raises Unauthorized for any other, TooManyRequests for an address that guesses.
        """
        if not FORM.fullmatch(key):
            self._attempts.begin(address)
            raise Unauthorized
        digest = hashlib.sha256(key.encode()).digest()
        known = self._recall(digest)
        if known is not None:
            return self._usable(await self._find(key[PREFIX]), known, digest)
        # A burst with one key is one guess: after a start nobody's key is remembered.
        began, refusal = (None, None) if digest in self._checking else self._begin(address)
        with self._noted(digest):
            row = await self._find(key[PREFIX])
            if row is None or not self._may_fit(row, key):
                await self._pretend(key, cheaply=refusal is not None)
                raise refusal or Unauthorized
            if not await self._compare(key, Comparison(digest, row.hash, row.fingerprint is not None)):
                raise refusal or Unauthorized
        row = self._usable(row, row.hash, digest)  # only now: a revoked key is refused as slowly as a wrong one
        if began is not None:
            self._attempts.forgive(address, began)
        self._remember(digest, row.hash)
        self._keep_fingerprint(row, key)
        return row

    def _begin(self, address: str) -> tuple[float | None, TooManyRequests | None]:
        """Count an attempt of the address.

        Returns what `forgive` takes, and the refusal if the address has had its share.
        """
        try:
            return self._attempts.begin(address), None
        except TooManyRequests as refusal:
            return None, refusal

    def _may_fit(self, row: ApiKey, key: str) -> bool:
        """Whether the key may be right, so that a comparison is worth its price."""
        return self._is_in_force(row) and row.fingerprint in (None, fingerprint(key))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _usable(self, row: ApiKey | None, matched: str, digest: bytes) -> ApiKey:
        """Return the row if it still holds the hash that the key matched, and is in force. Raises Unauthorized."""
        if row is not None and row.hash == matched and self._is_in_force(row):
            return row
        self._remembered.pop(digest, None)
        raise Unauthorized

    def _is_in_force(self, row: ApiKey) -> bool:
        return row.revoked_at is None and (row.expires_at is None or row.expires_at > self._now())

    def _recall(self, digest: bytes) -> str | None:
        """Return the hash that this key matched before.

        A match never changes; the row is read again for every request.
        """
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
    def _noted(self, digest: bytes) -> Iterator[None]:
        """Mark the key as being checked: the same key again is not another guess."""
        self._checking[digest] += 1
        try:
            yield
        finally:
            self._checking[digest] -= 1
            if not self._checking[digest]:
                del self._checking[digest]

    async def _compare(self, key: str, wanted: Comparison) -> bool:
        """Share one comparison among all requests that need it. It goes on when one of them leaves."""
        task = self._running.get(wanted)
        if task is None:
            self._check_room(wanted)
            task = self._running[wanted] = asyncio.create_task(self._run(key, wanted.against))
            task.add_done_callback(lambda _: self._running.pop(wanted, None))
        return await asyncio.shield(task)

    def _check_room(self, wanted: Comparison) -> None:
        """Raise Unavailable when too many comparisons wait.

        Keys without a fingerprint never fill the places of others.
        """
        doubtful = [one.against for one in self._running if not one.likely]
        crowd = len(doubtful) >= _MAX_DOUBTFUL or doubtful.count(wanted.against) >= _MAX_OF_ONE_PREFIX
        if len(self._running) >= _MAX_WAITING or (crowd and not wanted.likely):
            raise Unavailable("Too many keys are being checked.", retry_after=1)

    async def _pretend(self, key: str, *, cheaply: bool) -> None:
        """Take as long as a comparison: make one while the threads are free, else wait."""
        busy = self._running or (self._pretending is not None and not self._pretending.done())
        if cheaply or busy:
            await asyncio.sleep(self._usual_s)
            return
        self._pretending = asyncio.create_task(self._run(key, self._dummy))
        await asyncio.shield(self._pretending)

    async def _run(self, key: str, against: str) -> bool:
        began = time.monotonic()
        found = await asyncio.get_running_loop().run_in_executor(self._pool, matches, key, against)
        # A moving average: a refusal without a comparison waits as long.
        self._usual_s += (time.monotonic() - began - self._usual_s) / 8
        return found

    def _keep_fingerprint(self, row: ApiKey, key: str) -> None:
        if self._learn is not None and row.fingerprint is None:
            task = asyncio.create_task(self._keep(self._learn(row.id, fingerprint(key))))
            self._learning.add(task)
            task.add_done_callback(self._learning.discard)

    async def _keep(self, writing: Awaitable[None]) -> None:
        with suppress(ReelhookError):  # such as a full disk: it is kept the next time
            await writing


def _give_way() -> None:
    """Lower the priority of the threads that compare, but not to the last: requests with new keys wait for them.

    Linux only.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)


def matches(key: str, against: str) -> bool:
    """Whether bcrypt agrees. A row whose hash is no bcrypt hash fits no key; that is logged."""
    try:
        form = _HASH.fullmatch(against)
        if form is None or int(form[1]) > _MAX_COST:
            raise ValueError("not a bcrypt hash of a sane cost")
        return bcrypt.checkpw(key.encode(), against.encode())
    except (ValueError, TypeError, AttributeError):
        log.warning("key_hash_malformed", prefix=key[PREFIX])
        return False
