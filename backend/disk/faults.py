"""A disk that failed is not believed again: the process ends, and the next one goes on from what is durable.

After a failed fsync the kernel may have dropped what was to be written, and the next fsync succeeds all the same. So a
running service tries nothing again after it. It says why, and ends.
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
    """Return what the disk did, in words for the operator; None while it is believed."""
    return _declared[0] if _declared else None


def refuse() -> None:
    """Raise Unavailable after a fault: nothing that must be kept is accepted any more."""
    if _declared:
        raise _refusal()


def is_one(error: OSError) -> bool:
    """Whether a running service must end because of this error. A command that writes elsewhere just tells its user."""
    return bool(_watchers) and error.errno in _FAULTS


def declare(why: str) -> Unavailable:
    """Believe the disk no more, and return the error to raise. Any thread may call it, any number of times."""
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
