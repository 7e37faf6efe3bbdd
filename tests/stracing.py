"""strace as a fault injector in front of a command; where a process may not be traced, the test is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from crashes import strace


def spoiling(calls: str, effect: str, when: str, *files: Path) -> list[str]:
    """What a command is put behind, as `strace.under`; skips unless the machine must be able to."""
    if not strace.works():
        assert os.environ.get("REQUIRE_SERVICES") != "1", "strace is missing, or a process may not be traced"
        pytest.skip("strace is missing, or a process may not be traced here")
    return strace.under(calls, effect, when, files)
