"""The program that `commands` starts once: it imports the product and forks one process for each command."""

from __future__ import annotations

import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Any

NUMBER = struct.Struct("!i")
HEAVY = (
    "backend.app",
    "backend.backup.restoring",
    "backend.backup.taking",
    "backend.cli.commands",
    "backend.cli.doctor",
    "backend.cli.following",
    "backend.cli.happening",
    "backend.emulator",
    "backend.live.shown",
    "backend.web.mcp.serving",
    "reelhook",
    "uvloop",
)


def main() -> None:
    """Fork until nobody asks any more; each child becomes `reelhook` and ends as that does."""
    if os.fork():
        os._exit(0)  # the tests that count their children are not to find this one
    for name in HEAVY:
        import_module(name)
    gc.freeze()  # what a collection does not look at is not copied into each child
    if given := serve(socket.socket(fileno=int(sys.argv[1]))):
        become(*given)
        runpy.run_module("backend.cli", run_name="__main__", alter_sys=True)


def serve(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return in each child with what it was asked to be, and in this process when nobody asks any more."""
    heard, ring = os.pipe()
    for end in (heard, ring):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(ring)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watching: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, heard], [], [])
        if heard in ready:
            with suppress(BlockingIOError):
                os.read(heard, 4096)
            tell_ends(watching)
        if control in ready:
            asked = receive(control)
            if asked is None:
                return None
            _, given = asked
            if not (pid := os.fork()):
                return asked
            for each in given[:3]:
                os.close(each)
            watching[pid] = given[3]
            os.write(given[3], NUMBER.pack(pid))


def tell_ends(watching: dict[int, int]) -> None:
    """Tell whoever watches them which children have ended, and how."""
    while watching:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with suppress(BrokenPipeError):  # nobody wants to know
            os.write(watching[pid], NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os.close(watching.pop(pid))


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """One request: its arguments, environment and folder, and the files of its input, outputs and news."""
    head, given, _, _ = socket.recv_fds(control, NUMBER.size, 4)
    if not head:
        return None
    (length,) = NUMBER.unpack(head)
    return json.loads(control.recv(length, socket.MSG_WAITALL)), list(given)


def become(asked: dict[str, Any], given: list[int]) -> None:
    """Be in all that can be seen a process that was started anew."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for at, each in enumerate(given[:3]):
        os.dup2(each, at)
    os.closerange(3, 1024)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    random.seed()
    sys.argv[1:] = asked["arguments"]


if __name__ == "__main__":
    main()
