"""A disk without room is one decision, wherever it is met."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import StorageFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def needed() -> Iterator[None]:
    """Around whatever writes files: a full disk or an exhausted quota is `StorageFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull from error
        raise
