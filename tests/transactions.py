"""How much each transaction of the product changes, in every story that is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.db import connection

BACKEND = str(Path(connection.__file__).parents[1])
MOST_ROWS = 1_000


@contextmanager
def bounded() -> Iterator[list[int]]:
    """The rows that each of the product's transactions changed; fails at the end when one changed too many.

    What a test writes by itself is not counted.
    """
    found: list[int] = []
    large: list[str] = []

    def watched(run: Callable[..., Any]) -> Callable[..., Any]:
        def watching(at: sqlite3.Connection, tx: Any, work: Any) -> Any:
            before = at.total_changes
            answer = run(at, tx, work)
            code = getattr(work, "__code__", None)
            if code is not None and code.co_filename.startswith(BACKEND):
                found.append(at.total_changes - before)
                if found[-1] > MOST_ROWS:
                    large.append(f"{code.co_filename}:{code.co_firstlineno} changed {found[-1]} rows")
            return answer

        return watching

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_run_bare", "_run_saved"):
            patch.setattr(connection, name, watched(getattr(connection, name)))
        yield found
    assert not large, "\n".join(large)
