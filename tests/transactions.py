"""What each transaction of the product keeps to in every story that is told: its size, and that it may run again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from backend.db import commits

BACKEND = str(Path(commits.__file__).parents[1])
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

    with _around_works(watched):
        yield found
    assert not large, "\n".join(large)


@contextmanager
def twice() -> Iterator[list[str]]:
    """Run each work once for nothing and then again, as where another transaction came between; which there were.

    Whatever a first run leaves outside the database shows in what the story expects of the second.
    """
    found: list[str] = []

    def doubled(run: Callable[..., Any]) -> Callable[..., Any]:
        def doubling(at: sqlite3.Connection, tx: Any, work: Any) -> Any:
            found.append(f"{work.__module__}.{work.__qualname__}")
            at.execute("SAVEPOINT twice")
            with suppress(Exception):  # it will happen again, to the one who asked
                commits._drive(work(tx))
            if at.in_transaction:  # a disk that is full ends it all
                at.execute("ROLLBACK TO twice")
                at.execute("RELEASE twice")
            return run(at, tx, work)

        return doubling

    with _around_works(doubled):
        yield found


@contextmanager
def _around_works(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_run_bare", "_run_saved"):
            patch.setattr(commits, name, wrap(getattr(commits, name)))
        yield
