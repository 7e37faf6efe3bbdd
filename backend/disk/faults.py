"""A disk that broke its word is not believed again: the process ends, and the next one goes on from what is durable.

After a failed fsync the kernel may have dropped what was to be written, and says "done" when it is asked once
more. So a running service tries nothing again here; it says why, and ends.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from backend.core.errors import Unavailable

RETRY_AFTER_S = 10
_FAULTS = frozenset({errno.EIO, errno.EROFS, errno.ENODEV})

_lock = Lock()
_declared: list[str] = []
_watchers: list[Callable[[str], None]] = []


def reason() -> str | None:
    """What the disk did, in words for the operator; None while it is believed."""
    return _declared[0] if _declared else None


def refuse() -> None:
    """Raise Unavailable once a fault was declared: what must be kept is not taken any more."""
    if _declared:
        raise _refusal()


def is_one(error: OSError) -> bool:
    """Whether a running service must end for it; a command that writes elsewhere just tells its user."""
    return bool(_watchers) and error.errno in _FAULTS


def declare(why: str) -> Unavailable:
    """Believe the disk no more; the error for whoever asked. From any thread, any number of times."""
    with _lock:
        _declared.append(why)
        is_first = len(_declared) == 1
    if is_first:
        for tell in _watchers:
            tell(why)
    return _refusal()


@contextmanager
def watched(tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell` with the reason at the first fault, from whatever thread meets it."""
    _watchers.append(tell)
    try:
        yield
    finally:
        _watchers.remove(tell)


def _refusal() -> Unavailable:
    return Unavailable("The disk failed: nothing is taken until a restart.", retry_after=RETRY_AFTER_S)
