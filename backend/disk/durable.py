"""What is written here survives a power loss: of a file its bytes, of a folder the names in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def sync(path: Path, how: Callable[[int], None] | None = None) -> None:
    """The bytes of a file, or the names in a folder, survive a power loss from here on. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        (how or os.fsync)(descriptor)
    finally:
        os.close(descriptor)
