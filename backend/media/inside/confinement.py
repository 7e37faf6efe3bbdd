"""The process gives up, one after the other, the rights that it could do harm with. It cannot get them back.

Each step is taken where the system has it: limits on resources everywhere, the rest on Linux. A network namespace of
its own needs either root or user namespaces for everybody, which some systems and containers refuse; Landlock then
still keeps files and TCP out. `confine` says what holds, and `reelhook doctor` shows it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass

NOBODY = 65_534


@dataclass(frozen=True)
class Limits:
    """What a process may take: memory on top of what is loaded, the file it writes, open files, processor time."""

    memory_bytes: int
    file_bytes: int
    files: int
    cpu_s: int  # of its whole life; each order has less


LOOKS = Limits(235 << 20, 100_000_000, 16, 90)  # it stays below 300 MB, and what it writes is a picture
FILMS = Limits(600 << 20, 2_000_000_000, 48, 600)  # an encoder holds some pictures, and there are many films to join

_LINUX = sys.platform == "linux"
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC, _CLONE_NEWUTS = 0x10000000, 0x40000000, 0x08000000, 0x04000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same on every architecture
_CAPABILITY_VERSION = 0x20080522
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3


def confine(parent: int, limits: Limits = LOOKS) -> list[str]:
    """Give up everything; return which of it this system supports, in words. Exits when the parent is gone."""
    _ignore_signals()
    held = ["memory, time and files are limited"] if _limit(limits) else ["time and files are limited"]
    if not _LINUX:
        return held
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 1 << 20)):  # what is freed goes back at once
        with suppress(AttributeError):  # musl has none
            libc.mallopt(option, value)
    _volunteer()
    alone = _leave_network(libc)
    rooted = _leave_files()
    _drop_rights(libc)
    locked, no_tcp = _lock_files(libc)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # here: a change of user would undo it
    if os.getppid() != parent:
        os._exit(1)
    held += ["no network"] if alone else ["no TCP"] if no_tcp else []
    return held + (["no files"] if rooted or locked else []) + ["ends with the service"]


def _ignore_signals() -> None:
    """Ignore the signals that stop the service: they reach the whole group, and a file in hand is still finished."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _limit(limits: Limits) -> bool:
    """Limit memory, time and files; return whether memory is limited too, as some systems have no limit for it."""
    for name, most in (
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", limits.file_bytes),
        ("RLIMIT_NOFILE", limits.files),
        ("RLIMIT_CPU", limits.cpu_s),
        ("RLIMIT_MEMLOCK", 0),
    ):
        _lower(name, most)
    loaded = _loaded_bytes()
    if loaded:
        _lower("RLIMIT_AS", loaded + limits.memory_bytes)
        _lower("RLIMIT_NPROC", 0)
    return loaded > 0


def _lower(name: str, most: int) -> None:
    kind = getattr(resource, name, None)
    if kind is not None:
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _loaded_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _volunteer() -> None:
    """Let the system end this process, and not the service, when the machine has no memory left."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _leave_network(libc: ctypes.CDLL) -> bool:
    own = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    return any(libc.unshare(flags) == 0 for flags in (own, _CLONE_NEWUSER | own))


def _leave_files() -> bool:
    """Change the root to an empty folder that is removed already; return whether that worked."""
    try:
        folder = tempfile.mkdtemp(prefix="reelhook-cage-")
    except OSError:
        return False
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(folder)
    try:
        os.fchdir(place)
        os.chroot(".")
    except OSError:
        return False
    finally:
        os.close(place)
    return True


def _drop_rights(libc: ctypes.CDLL) -> None:
    """Become the user nobody when it was root, and drop every capability of a namespace."""
    if os.geteuid() == 0:
        with suppress(OSError):  # root of a container that may not change it
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with suppress(AttributeError):
        libc.capset(struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24))


def _lock_files(libc: ctypes.CDLL) -> tuple[bool, bool]:
    """Use Landlock without a single rule; return whether no file can be opened, and no TCP connection."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False, False
    files = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    handled = [files, 3 if version >= 4 else 0, 3 if version >= 6 else 0]
    known = handled[: 1 if version < 4 else 2 if version < 6 else 3]
    rules = struct.pack(f"={len(known)}Q", *known)
    ruleset = libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0)
    if ruleset < 0:
        return False, False
    locked = libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return locked, locked and version >= 4
