"""Output that nobody waits for: lines go into a bounded queue, and a thread of its own writes them.

A pipe that nobody reads, a closed one and a full disk cost lines and nothing else. Lost lines are counted, and the
next line that finds room says how many there were.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

MOST_LINES = 2_000
MOST_BYTES = 1 << 20
MOST_OF_A_LINE = 64 << 10  # a line without an end is written in pieces
LAST_LINES_S = 2.0  # in which an ending process writes what is still waiting
NAMES = ("stdout", "stderr")
GATHER_S = 0.01  # lines of a burst are written together: one at a time each costs 60 us more
LOOK_S = 0.005


class Outlet:
    """A file descriptor, what waits to be written to it, and the thread that writes."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._lock = threading.RLock()  # a finalizer may print in the middle of `put`
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._lost = 0  # after what is waiting: until that is taken, everything is
        self._untold = 0  # lost lines that nobody has read about
        self._is_torn = False
        self._is_closed = False
        self._is_idle = True
        self._bell = threading.Lock()
        self._bell.acquire()
        threading.Thread(target=self._run, name="output", daemon=True).start()

    def put(self, text: bytes) -> None:
        """Let whole lines be written in their turn, or count them as dropped."""
        if self._is_closed:  # before the lock: at the very end the thread may have stopped while it had it
            return
        with self._lock:
            full = len(self._waiting) >= MOST_LINES or self._bytes + len(text) > MOST_BYTES
            if self._waiting and (full or self._lost):
                self._lost += _lines(text)
                self.dropped += _lines(text)
                return
            self._waiting.append(text)
            self._bytes += len(text)
            if self._is_idle:
                self._is_idle = False
                self._bell.release()

    def wait(self, until: float) -> None:
        """Return when all is written, or at that time of the monotonic clock."""
        while not self._is_idle and time.monotonic() < until:
            time.sleep(LOOK_S)

    def close(self) -> None:
        """Take nothing any more: the process ends."""
        self._is_closed = True

    def _run(self) -> None:
        while True:
            self._bell.acquire()
            while taken := self._take():
                lines, lost = taken
                could = self._write(lines)
                self._untold += lost
                if could and self._untold:
                    self._write([])
                time.sleep(GATHER_S)

    def _take(self) -> tuple[list[bytes], int] | None:
        """All that waits, and how many lines were lost after it; None when there is nothing to do."""
        with self._lock:
            taken = self._waiting, self._lost
            self._waiting, self._bytes, self._lost = [], 0, 0
            self._is_idle = not taken[0]
            return None if self._is_idle else taken

    def _write(self, lines: Sequence[bytes]) -> bool:
        """Write lines after a word on what was lost before them; whether all of it could be written."""
        word = [_word(self._untold)] if self._untold else []
        text = b"".join([b"\n"] * self._is_torn + word + [*lines])
        done = 0
        try:
            while done < len(text):
                done += self._write_some(memoryview(text)[done:])
        except OSError:
            self._is_torn = text[done - 1 : done] != b"\n" if done else self._is_torn
            self._count_lost(min(text.count(b"\n", done), sum(map(_lines, lines))))
            return False
        self._is_torn, self._untold = False, 0
        return True

    def _write_some(self, text: memoryview) -> int:
        """Wait for room as long as it takes: this thread has nothing else to do."""
        try:
            return os.write(self._descriptor, text)
        except BlockingIOError:  # whoever made this pipe does not wait at it either
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0

    def _count_lost(self, lines: int) -> None:
        self._untold += lines
        with self._lock:
            self.dropped += lines


def _lines(text: bytes) -> int:
    return text.count(b"\n") or 1


def _word(lines: int) -> bytes:
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    said = {"lines": lines, "event": "log_lines_dropped", "level": "warning", "at": at}
    return json.dumps(said).encode() + b"\n"


class Output(io.TextIOBase):
    """What stands for sys.stdout or sys.stderr: text becomes lines of an outlet. Without one they are dropped."""

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
        """Take the text, and hand on the lines that are whole."""
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
        """Hand on what there is of a line; nothing is waited for."""
        if self._rest:
            with self._lock:
                rest, self._rest = self._rest, ""
                self._put(rest)

    def _put(self, text: str) -> None:
        if text and self._outlet:
            self._outlet.put(text.encode("utf-8", "backslashreplace"))


_outlets: list[Outlet] = []


def take_over(*names: str) -> None:
    """Let writes to sys.stdout and sys.stderr, or to those named, never wait, for the rest of this process."""
    _occupy()
    for name in names or NAMES:
        stream = getattr(sys, name)
        if stream is None:  # it was closed before the start
            setattr(sys, name, Output(None, NAMES.index(name) + 1))
        elif not isinstance(stream, Output) and (descriptor := _descriptor(stream)) is not None:
            setattr(sys, name, Output(_outlet(descriptor), descriptor))


def _occupy() -> None:
    """Take the numbers 0 to 2 where they are free: a database or a socket there would be written to, or not closed."""
    while (taken := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(taken, True)
    os.close(taken)


def _descriptor(stream: io.TextIOBase) -> int | None:
    """What the stream writes to; None when that is no file of the system's."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _outlet(descriptor: int) -> Outlet:
    """Two names for one file share a queue, so that their lines keep their order."""
    for known in _outlets:
        if os.path.sameopenfile(known._descriptor, descriptor):
            return known
    if not _outlets:
        atexit.register(_end)
    _outlets.append(Outlet(descriptor))
    return _outlets[-1]


def finish(within_s: float = LAST_LINES_S) -> None:
    """Wait until what was written has left, but no longer than that."""
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
    """How many lines of this process found no room."""
    return sum(outlet.dropped for outlet in _outlets)
