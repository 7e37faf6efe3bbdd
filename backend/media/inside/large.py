"""Large still WebP, decoded by ffmpeg into its own planes: Pillow holds such a picture four times over, as RGBA."""

from __future__ import annotations

from typing import BinaryIO

import av
from PIL import Image

from backend.core.errors import InvalidMedia
from backend.media.inside.bounds import DECODER_PIXELS, MAX_SIDE, check_size, decoding
from backend.media.inside.stills import to_image
from backend.media.kinds import Probe

SMALL_PIXELS = 10_000_000  # below it memory is no question
OPTIONS = {"codec_whitelist": "webp", "format_whitelist": "webp_pipe"}
LIMITS = {"max_pixels": str(DECODER_PIXELS), "threads": "1"}
ANIMATED = 0x02


def webp_size(file: BinaryIO) -> tuple[int, int] | None:
    """The size in the header of a large still picture; None for one that is small, animated or damaged.

    Source: the WebP container specification. Pillow cannot be asked: it makes room for the picture as it opens it.
    """
    file.seek(12)
    head = file.read(18)
    match head[:4]:
        case b"VP8X" if not head[8] & ANIMATED:
            size = 1 + int.from_bytes(head[12:15], "little"), 1 + int.from_bytes(head[15:18], "little")
        case b"VP8 ":
            size = int.from_bytes(head[14:16], "little") & 0x3FFF, int.from_bytes(head[16:18], "little") & 0x3FFF
        case b"VP8L":
            bits = int.from_bytes(head[9:13], "little")
            size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case _:
            return None
    return size if size[0] * size[1] > SMALL_PIXELS else None


def probe(file: BinaryIO, width: int, height: int, *, step: int) -> tuple[Probe, Image.Image]:
    """What the picture is, and the picture smaller by `step`."""
    check_size(width, height)
    with decoding():
        return Probe("image", "image/webp", width, height, frames=1), _picture(file, step)


def _picture(file: BinaryIO, step: int) -> Image.Image:
    file.seek(0)
    with av.open(file, "r", format="webp_pipe", container_options=OPTIONS, options=LIMITS) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = dict(LIMITS)
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for picture in container.decode(stream):
            check_size(picture.width, picture.height)
            return to_image(picture, max(1, min(MAX_SIDE, max(picture.width, picture.height) // step)))
    raise InvalidMedia("The file is damaged or not of its kind.")
