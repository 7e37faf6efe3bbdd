"""Our commands as processes of their own, which need no second to import the product: each is forked from one that has.

It has its own folder, environment, files, session and end, and can be killed. Where the start itself is the story,
or where a process is to run under another program, `subprocess` does it.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any

from command_fork import NUMBER

_ONE_AT_A_TIME = Lock()


class Process:
    """A command that runs. Like `subprocess.Popen` in what it offers."""

    def __init__(self, news: int) -> None:
        self.returncode: int | None = None
        self._news = news
        self.pid = self._hear()

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        if self.returncode is None and select.select([self._news], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status when it has ended. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("reelhook", timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self.returncode = self._hear()
        os.close(self._news)

    def _hear(self) -> int:
        said = os.read(self._news, NUMBER.size)
        assert said, "the process that forks the commands is gone"
        return int(NUMBER.unpack(said)[0])


def spawn(
    *arguments: object,
    environment: Mapping[str, str],
    stdout: IO[Any],
    stderr: IO[Any] | None = None,
    folder: Path | None = None,
) -> Process:
    """Start `reelhook ...` in this folder with exactly this environment, and do not wait for it."""
    asked = {
        "arguments": [str(each) for each in arguments],
        "environment": dict(environment),
        "folder": str(folder or Path.cwd()),
    }
    content = json.dumps(asked).encode()
    news, tell = os.pipe()
    with open(os.devnull, "rb") as nothing, _ONE_AT_A_TIME:
        given = [nothing.fileno(), stdout.fileno(), (stderr or stdout).fileno(), tell]
        socket.send_fds(_control(), [NUMBER.pack(len(content))], given)
        _control().sendall(content)
    os.close(tell)
    return Process(news)


def run(
    *arguments: object, environment: Mapping[str, str], folder: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[bytes]:
    """Run `reelhook ...` to its end. Raises TimeoutExpired after having killed it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = spawn(*arguments, environment=environment, stdout=out, stderr=err, folder=folder)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read(), err.read())


def run_text(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `reelhook ...` to its end; what it wrote is text."""
    done = run(*arguments, **more)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@cache
def _control() -> socket.socket:
    """Start what forks the commands, as nobody's child; it ends when this process does."""
    ours, theirs = socket.socketpair()
    program = str(Path(__file__).with_name("command_fork.py"))
    with theirs:
        subprocess.run(
            [sys.executable, "-u", program, str(theirs.fileno())],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            check=True,
        )
    atexit.register(ours.close)
    return ours
