"""Programs of ours run beside a command: started in a folder, watched by their log, stopped for sure."""

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
    """`reelhook ...` as a process of its own whose output goes to a file."""

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
        """The pattern's first group as soon as the log has it. Raises ReelhookError with the log's end."""
        ends_at = time.monotonic() + READY_S
        while time.monotonic() < ends_at:
            stopped = self._process.poll() is not None
            if found := re.search(pattern, self.log.read_text(errors="replace")):
                return found[1]
            if stopped:
                raise ReelhookError(f"the {self.name} stopped before it was ready; {self.last_words()}")
            time.sleep(0.05)
        raise ReelhookError(f"the {self.name} was not ready in {READY_S:.0f} s; {self.last_words()}")

    def last_words(self) -> str:
        """Where the log is and how it ends."""
        lines = self.log.read_text(errors="replace").splitlines()[-LINES_SHOWN:]
        return "\n  ".join([f"{self.log} ends with:", *lines])

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


COMMAND = (sys.executable, "-m", "backend.cli")


def answer_of(arguments: list[str], folder: Path, settings: Mapping[str, str]) -> str:
    """What a short `reelhook ...` prints. Raises ReelhookError with its complaint."""
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
    """This process's environment with exactly these settings and none of the operator's own."""
    ours = {name for names in setting_names().values() for name in names}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    return kept | dict(settings) | {"PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP end the block in the same way: what it started is stopped by its `finally`.

    While something is being started they are held back: a process that was made, but not yet noted down to
    be stopped, would stay behind.
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
        """The time in which something is started; what came meanwhile comes at its end."""
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
