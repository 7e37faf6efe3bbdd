"""Processes as Linux shows them: whose they are, what they hold, how much memory they have."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def children(pid: int) -> list[int]:
    """Its children and theirs, by their ids; the dead ones that nobody has asked about are left out."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    parents.setdefault(int(parent), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        more = parents.get(todo.pop(), [])
        found += more
        todo += more
    return sorted(found)


def is_there(pid: int) -> bool:
    """Whether it lives, whoever's child it is now."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def resident_mb(*pids: int) -> float:
    """What these processes hold. One that was forked and runs no program of its own yet shows its parent's memory."""
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if parent not in pids or _program(pid) != _program(parent):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB
    return total


def _program(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def tree_mb(pid: int) -> float:
    """Resident memory of a process with all its children."""
    return resident_mb(pid, *children(pid))


def open_files(pid: int) -> dict[int, str]:
    """Its descriptors and what they are."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found[int(entry.name)] = os.readlink(entry)
    return found


def has_open(pid: int, folder: Path) -> bool:
    """Whether a process has a file of this folder open."""
    with suppress(OSError):
        return any(what.startswith(f"{folder}/") for what in open_files(pid).values())
    return False
