"""What a test that fails has to show: the log and the rows of each service that it worked with."""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import structlog

MOST_LINES = 200
MOST_ROWS = 10  # generations, and of each so many events and deliveries
GENERATION = ("id", "kind", "status", "provider", "provider_id", "attempts", "polls", "error_code", "error_message")
GENERATION += ("created_at", "claimed_at", "submitted_at", "due_at", "deadline_at", "finished_at", "lease_owner")
BELONGING = {
    "events": ("type", "created_at"),
    "deliveries": ("webhook_id", "received_at", "handled_at", "attempts", "note"),
    "webhook_deliveries": ("type", "status", "url", "attempts", "due_at", "finished_at", "lease_owner"),
}


@dataclass(frozen=True)
class Trail:
    """A service that was started: where its rows are, what it logged, and whether it is over."""

    database: Path
    log: Callable[[], str]
    is_over: Callable[[], bool]


_LEFT: dict[Path, Trail] = {}


def leave(database: Path, log: Callable[[], str], is_over: Callable[[], bool]) -> None:
    """Have the test that fails next show this service; what was over before that test began is not shown."""
    _LEFT[database] = Trail(database, log, is_over)


@contextmanager
def left(database: Path, log: Callable[[], str] = str) -> Iterator[None]:
    """The same for the length of a block, and until the test that is then at work has ended."""
    over: list[bool] = []
    leave(database, log, lambda: bool(over))
    try:
        yield
    finally:
        over.append(True)


def forget() -> None:
    """A test begins: what is over belongs to others."""
    for trail in [*_LEFT.values()]:
        if trail.is_over():
            del _LEFT[trail.database]


def sections() -> list[tuple[str, str]]:
    """What there is to show now, by its title."""
    shown = []
    for trail in _LEFT.values():
        shown.append((f"The last lines of the service at {trail.database}", ending(trail.log())))
        shown.append((f"The last rows of {trail.database}", "\n".join(islice(rows(trail.database), MOST_LINES))))
    return [(title, text) for title, text in shown if text]


def ending(text: str) -> str:
    return "\n".join(text.splitlines()[-MOST_LINES:])


def rows(database: Path) -> Iterator[str]:
    """The newest generations and what belongs to them, a line each; a database that cannot be read says why."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            newest = f"SELECT * FROM generations ORDER BY created_at DESC, id DESC LIMIT {MOST_ROWS}"  # noqa: S608
            for generation in connection.execute(newest).fetchall():
                yield line(generation, GENERATION)
                yield from belonging(connection, generation["id"])
    except sqlite3.Error as error:
        yield f"they cannot be read: {error}"


def belonging(connection: sqlite3.Connection, id: str) -> Iterator[str]:
    for table, columns in BELONGING.items():
        statement = f"SELECT * FROM {table} WHERE generation_id = ? ORDER BY id LIMIT {MOST_ROWS}"  # noqa: S608
        for row in connection.execute(statement, (id,)):
            yield f"  {table}: {line(row, columns)}"


def line(row: sqlite3.Row, columns: tuple[str, ...]) -> str:
    """What it says, without what is empty; columns that this schema does not have are left out."""
    there = [name for name in columns if name in row.keys() and row[name] is not None]  # noqa: SIM118
    return " ".join(f"{name}={str(row[name])[:200]}" for name in there)


class Kept:
    """The log of a service in this process: its last lines are kept, and none is printed."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def keep(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """As a processor of structlog, the last one."""
        self._lines.append(f"{level} " + " ".join(f"{name}={value}" for name, value in event.items()))
        raise structlog.DropEvent


def forget_how_was_logged() -> None:
    """Loggers that were used under another configuration keep it, and would log past this one."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("backend.") and (logger := getattr(module, "log", None)) is not None:
            getattr(logger, "__dict__", {}).pop("bind", None)


@contextmanager
def kept() -> Iterator[Kept]:
    """Keep what is logged in this process. To print one traceback as structlog does by itself takes a second or two."""
    log, before = Kept(), structlog.get_config()
    forget_how_was_logged()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, log.keep],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=False,
    )
    try:
        yield log
    finally:
        structlog.configure(**before)
