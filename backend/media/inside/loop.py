"""The child process: confined first, then one order after the other over the socket that is its standard input.

An order is JSON with the files as open descriptors: `reads` of them to read, and perhaps one more to write into. The
answer is a line of JSON. An error that is not expected ends the process, which the service takes for an answer about
the file.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import pkgutil
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from encodings import ascii, latin_1, unicode_escape, utf_8, utf_16, utf_16_be, utf_16_le  # noqa: F401
from typing import Any, BinaryIO

# What the decoders import only when they need it: then there are no files any more.
import av
from PIL import (  # noqa: F401
    ExifTags,
    GifImagePlugin,
    ImageChops,
    ImageCms,
    ImageColor,
    ImageFilter,
    ImagePalette,
    JpegImagePlugin,
    JpegPresets,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    TiffTags,
    WebPImagePlugin,
)

from backend.core.errors import InvalidMedia, StorageFull
from backend.media.inside import inspection
from backend.media.inside.confinement import FILMS, LOOKS, Limits, confine
from backend.media.inside.stitch import stitch
from backend.media.inside.trim import trim
from backend.media.kinds import Probe

ORDER_BYTES = 1000
MOST_FILES = 40
LIMITS = {"looks": LOOKS, "films": FILMS}
WORKS: dict[str, Callable[..., Probe]] = {
    "probe": inspection.probe,
    "inspect": inspection.inspect,
    "poster": inspection.poster,
    "frame": inspection.frame,
    "trim": trim,
    "stitch": stitch,
}


def main(parent: int, sort: str) -> None:
    """Serve the process `parent` until it closes the socket; `sort` is what it is for, one of LIMITS."""
    limits = LIMITS[sort]
    _load_rest()
    line = socket.socket(fileno=0)
    held = confine(parent, limits)
    _say(line, {"holds": held})
    while True:
        text, files, _, _ = socket.recv_fds(line, ORDER_BYTES, MOST_FILES)
        if not text:
            return
        _say(line, _obey(json.loads(text), files, limits))


def _load_rest() -> None:
    """Load all of PyAV now: its parts import each other while they work, and then no file can be opened any more."""
    for part in pkgutil.walk_packages(av.__path__, "av."):
        if part.name not in ("av.__main__", "av.datasets"):
            importlib.import_module(part.name)


def _obey(order: dict[str, Any], files: list[int], limits: Limits) -> dict[str, Any]:
    """Return the answer to one order. The system ends the process when its time is over."""
    _set_clocks(order.pop("within_s"), limits)
    reads = order.pop("reads")
    with ExitStack() as closing:
        opened: list[BinaryIO] = [closing.enter_context(open(file, "rb")) for file in files[:reads]]
        opened += [closing.enter_context(open(file, "wb")) for file in files[reads:]]
        try:
            found = WORKS[order.pop("work")](*opened, **order)
            answer: dict[str, Any] = {
                "found": asdict(found),
                "wrote": any(os.fstat(file).st_size for file in files[reads:]),
            }
        except InvalidMedia as error:
            answer = {"invalid": error.message}
        except StorageFull:
            answer = {"full": True}
    signal.alarm(0)
    return answer | {"used_s": time.process_time()}


def _set_clocks(within_s: float, limits: Limits) -> None:
    """Limit processor time and wall-clock time. The service has a limit of its own, which is a little shorter."""
    used_s = time.process_time()
    soft = min(math.ceil(used_s + within_s), limits.cpu_s)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.alarm(math.ceil(within_s) + 2)


def _say(line: socket.socket, answer: dict[str, Any]) -> None:
    line.sendall(json.dumps(answer).encode() + b"\n")
