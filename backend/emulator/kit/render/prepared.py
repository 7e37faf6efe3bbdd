"""Prepared outputs for load tests: one JPEG, one PNG and one MP4, made once."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from backend.emulator.kit.render import films, pictures


@cache
def prepared(content_type: str) -> bytes:
    """About 100 kB of a valid image, or a small MP4."""
    if content_type == "video/mp4":
        return _film()
    size = (192, 192) if content_type == "image/png" else (290, 290)
    noise = random.Random(7).randbytes(size[0] * size[1] * 3)  # nosec B311 - bytes that do not compress
    return pictures.encode(Image.frombytes("RGB", size, noise), content_type[-3:])


def _film() -> bytes:
    start = pictures.picture("", "prepared", (320, 180), None)
    film = films.Film("", "prepared", start, None, "standard", 1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        films.encode(film, path, lambda share: None)
        return path.read_bytes()
