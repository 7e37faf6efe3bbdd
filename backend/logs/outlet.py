"""A file descriptor that nobody waits for: lines go into a bounded queue, and a thread of its own writes them.

A pipe that nobody reads, a closed one and a full disk cost lines and nothing else. Lost lines are counted, and the
next line that finds room says how many there were.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

MOST_LINES = 2_000

MOST_BYTES = 1 << 20

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
        self._lost = 0  # after what is waiting; from the first lost line on all are, so that the gap has one place
        self._untold = 0  # lost lines that nobody has read about
        self._is_torn = False
        self._is_closed = False
        self._is_idle = True
        self._bell = threading.Lock()
        self._bell.acquire()
        threading.Thread(target=self._run, name="output", daemon=True).start()

    def put(self, text: bytes) -> None:
        """Queue whole lines to be written, or count them as dropped."""
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
        """Wait until all is written, or until that time of the monotonic clock."""
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
        """Take all that waits, with the number of lines that were lost after it; None when there is nothing."""
        with self._lock:
            taken = self._waiting, self._lost
            self._waiting, self._bytes, self._lost = [], 0, 0
            self._is_idle = not taken[0]
            return None if self._is_idle else taken

    def _write(self, lines: Sequence[bytes]) -> bool:
        """Write the lines, and before them how many were lost; return whether all could be written."""
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
