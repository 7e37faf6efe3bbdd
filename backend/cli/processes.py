"""Programs of ours that run beside a command: started in a folder, watched by their log, and always stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from backend.config.loading import setting_names
from backend.core.errors import ReelhookError

READY_S = 60.0
STOP_S = 15.0
LINES_SHOWN = 8


class Program:
    """`reelhook ...` as a process of its own. Its output goes to a file."""

    def __init__(self, name: str, arguments: list[str], folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the command alone, which then stops everything in order.
            self._process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, pattern: str) -> str:
        """Return the first group of the pattern as soon as the log has it.

        Raises ReelhookError with the end of the log.
        """
        ends_at = time.monotonic() + READY_S
        while time.monotonic() < ends_at:
            # Asked before the log is read: so its last words are in what is read.
            stopped = self._process.poll() is not None
            if found := re.search(pattern, self.log.read_text(errors="replace")):
                return found[1]
            if stopped:
                raise ReelhookError(f"the {self.name} stopped before it was ready; {self.last_words()}")
            time.sleep(0.05)
        raise ReelhookError(f"the {self.name} was not ready in {READY_S:.0f} s; {self.last_words()}")

    def last_words(self) -> str:
        """Return where the log is and how it ends."""
        lines = self.log.read_text(errors="replace").splitlines()[-LINES_SHOWN:]
        return "\n  ".join([f"{self.log} ends with:", *lines])

    def stop(self) -> None:
        """Ask the program to end, and kill it when it does not."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


COMMAND = (sys.executable, "-m", "backend.cli")


def answer_of(arguments: list[str], folder: Path, settings: Mapping[str, str]) -> str:
    """Return what a short `reelhook ...` prints. Raises ReelhookError with its complaint."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )
    if done.returncode:
        raise ReelhookError(f"`reelhook {' '.join(arguments)}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with exactly these settings, and none of the operator's own."""
    ours = {name for names in setting_names().values() for name in names}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    # Unbuffered: else the line that says "ready" stays in a buffer, for the output is a file.
    return kept | dict(settings) | {"PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """Return a port on which nobody listens right now."""
    # Somebody else may take it before it is used: then the service says so, and stops.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP all raise KeyboardInterrupt, so that `finally` stops what the block started.

    While a program is being started they are held back: one that runs, but is not yet noted down, would be left behind.
    """

    def __init__(self) -> None:
        self._holding = self._came = False

    def __enter__(self) -> Interrupts:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._arrive) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back while something is started. One that came meanwhile takes effect at the end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._came:
            raise KeyboardInterrupt

    def _arrive(self, *_: object) -> None:
        if not self._holding:
            raise KeyboardInterrupt
        self._came = True
