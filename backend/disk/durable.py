"""Make files and names survive a power loss. A renamed file needs both: the bytes, and the folder that has its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def sync(path: Path, how: Callable[[int], None] | None = None) -> None:
    """Wait until the bytes of a file, or the names in a folder, survive a power loss. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        (how or os.fsync)(descriptor)
    finally:
        os.close(descriptor)
