"""The child process: confined first, then one order after the other over the socket that is its standard input.

An order is JSON with the file as an open descriptor, and a second one to write a picture into. The answer is a line of
JSON. An error that is not expected ends the process, which the service takes for an answer about the file.
"""

from __future__ import annotations

import importlib
import json
import math
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
from backend.media.inside.confinement import CPU_S, confine
from backend.media.kinds import Probe

ORDER_BYTES = 1000
WORKS: dict[str, Callable[..., Probe]] = {
    "probe": inspection.probe,
    "inspect": inspection.inspect,
    "poster": inspection.poster,
    "frame": inspection.frame,
}


def main(parent: int) -> None:
    """Serve the process `parent` until it closes the socket."""
    _load_rest()
    line = socket.socket(fileno=0)
    held = confine(parent)
    _say(line, {"holds": held})
    while True:
        text, files, _, _ = socket.recv_fds(line, ORDER_BYTES, 2)
        if not text:
            return
        _say(line, _obey(json.loads(text), files))


def _load_rest() -> None:
    """Load all of PyAV now: its parts import each other while they work, and then no file can be opened any more."""
    for part in pkgutil.walk_packages(av.__path__, "av."):
        if part.name not in ("av.__main__", "av.datasets"):
            importlib.import_module(part.name)


def _obey(order: dict[str, Any], files: list[int]) -> dict[str, Any]:
    """Return the answer to one order. The system ends the process when its time is over."""
    _set_clocks(order.pop("within_s"))
    with ExitStack() as closing:
        opened: list[BinaryIO] = [closing.enter_context(open(files[0], "rb"))]
        opened += [closing.enter_context(open(file, "wb")) for file in files[1:]]
        try:
            found = WORKS[order.pop("work")](*opened, **order)
            answer: dict[str, Any] = {"found": asdict(found), "wrote": bool(files[1:]) and opened[1].tell() > 0}
        except InvalidMedia as error:
            answer = {"invalid": error.message}
        except StorageFull:
            answer = {"full": True}
    signal.alarm(0)
    return answer | {"used_s": time.process_time()}


def _set_clocks(within_s: float) -> None:
    """Limit processor time and wall-clock time. The service has a limit of its own, which is a little shorter."""
    used_s = time.process_time()
    soft = min(math.ceil(used_s + within_s), CPU_S)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.alarm(math.ceil(within_s) + 2)


def _say(line: socket.socket, answer: dict[str, Any]) -> None:
    line.sendall(json.dumps(answer).encode() + b"\n")
