"""Bounds of one look at a file: pixels of a picture, pixels of all pictures together, and what decoders may raise."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import av

from backend.core.errors import InvalidMedia
from backend.media.kinds import MAX_PIXELS

MAX_SIDE = 65_535
DECODER_PIXELS = MAX_PIXELS + 63 * MAX_SIDE  # ffmpeg counts a line as if it had a multiple of 64

# What Pillow and PyAV are known to raise over broken input; a MemoryError is a size nobody can mean.
DECODE_ERRORS = (
    av.FFmpegError,
    struct.error,
    zlib.error,
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
)


class Budget:
    """The pixels that may be decoded in one look, all pictures together."""

    def __init__(self, pixels: int) -> None:
        self._left = pixels

    def spend(self, width: int, height: int) -> bool:
        """Count one decoded picture; return whether another one may follow. Raises InvalidMedia for one too large.

        Every picture is checked: a stream may say another size than its header, at any time.
        """
        check_size(width, height)
        self._left -= width * height
        return self._left > 0


def check_size(width: int, height: int) -> None:
    """Raise `InvalidMedia` for a picture that would be too large in memory, or has no area."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise InvalidMedia(f"The picture has {width} x {height} pixels; at most {MAX_PIXELS:,} are taken.")


@contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever a decoder raises about a file into `InvalidMedia`."""
    try:
        yield
    except (MemoryError, av.error.MemoryError) as error:
        raise InvalidMedia("The file needs more memory than one file may have.") from error
    except av.error.ArgumentError as error:  # what a decoder says beyond its own limit of pixels
        raise InvalidMedia(f"The file is damaged, or a picture in it has more than {MAX_PIXELS:,} pixels.") from error
    except DECODE_ERRORS as error:
        raise InvalidMedia(f"The file is damaged or not of its kind ({type(error).__name__}).") from error
