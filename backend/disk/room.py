"""A full disk is one error, StorageFull, wherever it is met."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from backend.core.errors import StorageFull
from backend.disk import faults

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # the last: no file may be so large here


@contextmanager
def needed() -> Iterator[None]:
    """Wrap what writes files: a full disk or quota raises `StorageFull`, and a failing disk is declared as a fault."""
    try:
        yield
    except OSError as error:
        if is_short(error):
            raise StorageFull from error
        if faults.is_one(error):
            raise faults.declare(f"a file could not be written: {error}") from error
        raise


def is_short(error: OSError) -> bool:
    """Whether there was no room, or a quota or the limit for a file was reached."""
    return error.errno in _NO_ROOM
