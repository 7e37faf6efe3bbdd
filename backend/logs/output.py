"""Standard output and standard error that nobody waits for: what is printed goes to an outlet, line by line."""

from __future__ import annotations

import atexit
import io
import os
import sys
import threading
import time

from backend.logs.outlet import Outlet

MOST_OF_A_LINE = 64 << 10  # a line without an end is written in pieces
LAST_LINES_S = 2.0  # in which an ending process writes what is still waiting
NAMES = ("stdout", "stderr")


class Output(io.TextIOBase):
    """A stream in place of sys.stdout or sys.stderr: text becomes lines of an outlet; without one they are dropped."""

    def __init__(self, outlet: Outlet | None, descriptor: int) -> None:
        super().__init__()
        self._outlet = outlet
        self._descriptor = descriptor
        self._rest = ""
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._outlet is not None and os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Take the text, and hand its whole lines on."""
        if text.endswith("\n") and not self._rest:  # as every line of the log: no lock for those
            self._put(text)
            return len(text)
        with self._lock:
            whole, end, rest = (self._rest + text).rpartition("\n")
            if len(rest) > MOST_OF_A_LINE:
                whole, end, rest = whole + end + rest, "", ""
            self._rest = rest
            self._put(whole + end)
        return len(text)

    def flush(self) -> None:
        """Hand an unfinished line on. It waits for nothing: a flush that waits would stop whoever prints."""
        if self._rest:
            with self._lock:
                rest, self._rest = self._rest, ""
                self._put(rest)

    def _put(self, text: str) -> None:
        if text and self._outlet:
            self._outlet.put(text.encode("utf-8", "backslashreplace"))


_outlets: list[Outlet] = []


def take_over(*names: str) -> None:
    """Replace sys.stdout and sys.stderr, or the named ones, by streams that never wait, until the process ends."""
    _occupy()
    for name in names or NAMES:
        stream = getattr(sys, name)
        if stream is None:  # it was closed before the start
            setattr(sys, name, Output(None, NAMES.index(name) + 1))
        elif not isinstance(stream, Output) and (descriptor := _descriptor(stream)) is not None:
            setattr(sys, name, Output(_outlet(descriptor), descriptor))


def _occupy() -> None:
    """Occupy the descriptors 0 to 2 where they are free: a database that got one would be written into by prints."""
    while (taken := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(taken, True)
    os.close(taken)


def _descriptor(stream: io.TextIOBase) -> int | None:
    """Return the descriptor that the stream writes to; None when there is none, as for a stream in memory."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _outlet(descriptor: int) -> Outlet:
    """Return the outlet of a descriptor. Two descriptors of one file share it, so that their lines keep their order."""
    for known in _outlets:
        if os.path.sameopenfile(known._descriptor, descriptor):
            return known
    if not _outlets:
        atexit.register(_end)
    _outlets.append(Outlet(descriptor))
    return _outlets[-1]


def finish(within_s: float = LAST_LINES_S) -> None:
    """Wait until everything is written, but no longer than `within_s`."""
    until = time.monotonic() + within_s
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Output):
            stream.flush()
    for outlet in _outlets:
        outlet.wait(until)


def _end() -> None:
    finish()
    for outlet in _outlets:
        outlet.close()


def dropped() -> int:
    """Return how many lines of this process were dropped."""
    return sum(outlet.dropped for outlet in _outlets)
