"""UUIDv7: ids that sort by the time they were made (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import re
import threading

_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_lock = threading.Lock()
_last = 0


def new_id(now_ms: int) -> str:
    """Return a UUIDv7 of this millisecond that is larger than every id this process made before."""
    global _last
    with _lock:
        fresh = (now_ms << 74) | int.from_bytes(os.urandom(10)[:10], "big") >> 6
        # Ids of one process keep their order even within a millisecond or when the clock steps back.
        _last = fresh if fresh > _last else _last + 1 + int.from_bytes(os.urandom(4), "big")
        return _write(_last)


def after(last: str, now_ms: int) -> str:
    """Return a UUIDv7 of this millisecond, or the next one after `last` when that is of a later time.

    Another process may have a clock that is ahead; ids of events grow all the same.
    """
    fresh = new_id(now_ms)
    return fresh if fresh > last else _write(_read(last) + 1 + int.from_bytes(os.urandom(4), "big"))


def floor_id(at_ms: int) -> str:
    """Return the smallest id that can be made at this millisecond: it bounds a list by time without another index."""
    return _write(max(at_ms, 0) << 74)


def is_id(text: str) -> bool:
    """Whether this has the form of an id; that a row has it is not said."""
    return _PATTERN.fullmatch(text) is not None


def _write(value: int) -> str:
    """Write a number of 48 bits of time and 74 free bits as a UUID, with version and variant put in between."""
    time, high, low = value >> 74, (value >> 62) & 0xFFF, value & (1 << 62) - 1
    text = f"{(time << 80) | (0x7 << 76) | (high << 64) | (0x2 << 62) | low:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _read(id: str) -> int:
    bits = int(id.replace("-", ""), 16)
    return bits >> 80 << 74 | (bits >> 64 & 0xFFF) << 62 | bits & (1 << 62) - 1
