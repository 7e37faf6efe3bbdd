"""Faults at the n-th system call of the service: a kill, or an error instead of the call.

The counter counts one call of one thread: with several names, or several threads, it is the first to reach
the n-th that is hit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from emulating import until
from gateway import Gateway

from crashes.case import CleanRun
from crashes.scene import Scene

KILL = "signal=KILL"
SYNCS = "fsync,fdatasync"
WORDS = "write,writev,sendto,sendmsg"  # what leaves through a socket, when the main thread does it


@cache
def works() -> bool:
    """Whether this machine lets one process trace another that it did not start from within."""
    if not shutil.which("strace"):
        return False
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with attached(other.pid, "-e", "trace=fsync"):
            return True
    except AssertionError:
        return False
    finally:
        other.kill()
        other.communicate()


def options(calls: str, effect: str, when: str, files: Iterable[Path] = ()) -> list[str]:
    """strace's words for it: `effect` at the calls that `when` counts (`3`: the third, `3+`: from it on)."""
    only = [word for file in files for word in ("-P", str(file))]
    return [*only, "-e", f"trace={calls}", "-e", f"inject={calls}:{effect}:when={when}"]


def required_under(calls: str, effect: str, when: str, files: Iterable[Path] = ()) -> list[str]:
    """The same for a test of its own: it is skipped where no process may be traced, and fails where one must be."""
    if not works():
        assert os.environ.get("REQUIRE_SERVICES") != "1", "strace is missing, or a process may not be traced"
        pytest.skip("strace is missing, or a process may not be traced here")
    return under(calls, effect, when, files)


def under(calls: str, effect: str, when: str, files: Iterable[Path] = ()) -> list[str]:
    """What a command is put behind, to be spoiled from its first call on."""
    # Other calls are not stopped at, which is much faster; but strace then sends no signal, and says nothing of it.
    filter = [] if files or effect.startswith("signal") else ["--seccomp-bpf"]
    return ["strace", "-f", "-qq", *filter, "-o", "/dev/null", *options(calls, effect, when, files)]


@contextmanager
def attached(pid: int, *words: str, threads: bool = True) -> Iterator[Callable[[], str]]:
    """strace beside a running process, all its threads or the main one; gives what it wrote so far."""
    with tempfile.NamedTemporaryFile("w+", prefix="strace-") as told:
        follow = ["-f"] if threads else []
        command = ["strace", *follow, "-qq", "-o", told.name, *words, "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            until(lambda: tracer.poll() is not None or _is_traced(pid, threads), 20)
            # One that was hit as soon as it was traced has ended, and its tracer with it.
            assert tracer.poll() is None or _has_ended(pid), "the process cannot be traced"
            yield lambda: Path(told.name).read_text("utf-8", "replace")
        finally:
            tracer.terminate()  # the process goes on
            tracer.wait(20)


@contextmanager
def injecting(
    service: Gateway, calls: str, effect: str, when: str, files: Iterable[Path] = (), *, threads: bool = True
) -> Iterator[Callable[[], bool]]:
    """Spoil a running service's calls as long as the block lasts; gives whether one has been spoiled."""
    assert service.process is not None
    with attached(service.process.pid, *options(calls, effect, when, files), threads=threads) as told:
        yield lambda: is_down(service) or "INJECTED" in told()


def killed_at(
    scene: Scene, calls: str, when: int, story: Callable[[], Any], files: Iterable[Path] = (), **more: bool
) -> None:
    """Kill the service at its n-th such call in the story, and start it again. Raises CleanRun when it was not hit.

    The story may end in any way when the service is killed in it.
    """
    with injecting(scene.service, calls, KILL, str(when), files, **more):
        try:
            story()
        except Exception:
            with suppress(AssertionError):
                until(lambda: is_down(scene.service), 5)
            if not is_down(scene.service):
                raise
    if not is_down(scene.service):
        raise CleanRun
    scene.restart()


def is_down(service: Gateway) -> bool:
    return service.process is None or service.process.poll() is not None


def _has_ended(pid: int) -> bool:
    with suppress(OSError):
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    return True


def _is_traced(pid: int, threads: bool) -> bool:
    with suppress(OSError):
        tasks = [Path(f"/proc/{pid}/task/{pid}")] if not threads else list(Path(f"/proc/{pid}/task").iterdir())
        return all("\nTracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)
    return False
