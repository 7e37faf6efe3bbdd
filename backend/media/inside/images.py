"""Still and animated images, decoded by Pillow with one named decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, ImageOps

from backend.core.errors import InvalidMedia
from backend.media.inside import large
from backend.media.inside.bounds import DECODE_ERRORS, Budget, check_size, decoding
from backend.media.inside.endings import check_end
from backend.media.kinds import Probe

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
MAX_FRAMES = 1000
MOST_PIXELS = 400_000_000  # of all frames of an animation: some seconds
SMALL_PIXELS = large.SMALL_PIXELS
STRIP_PIXELS = 4_000_000
ORIENTATION = 0x0112
REDUCIBLE = frozenset({"RGB", "RGBA", "L", "LA"})
SIDEWAYS = frozenset({5, 6, 7, 8})


@contextmanager
def opened(file: BinaryIO, content_type: str) -> Iterator[Image.Image]:
    """Open an image: its header is read and its size checked, and nothing is decoded yet."""
    file.seek(0)
    try:
        with decoding(), Image.open(file, formats=[FORMATS[content_type]]) as image:
            check_size(*image.size)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidMedia("The picture has too many pixels.") from error


def probe_image(file: BinaryIO, content_type: str, *, full: bool) -> Probe:
    """Return what an image is; with `full`, every frame is decoded and the end of the file is looked for."""
    if full:
        check_end(file, content_type)
    if content_type == "image/webp" and (wide := large.webp_size(file)):
        return large.probe(file, *wide, step=max(wide))[0]
    with opened(file, content_type) as image:
        size = displayed_size(image, content_type)
        if not full:
            return Probe("image", content_type, *size)
        image.draft("RGB", (1, 1))  # a scaled JPEG still reads every bit of the file, at half the time
        image.load()
        return Probe("image", content_type, *size, frames=count_frames(image, content_type))


def shrink(file: BinaryIO, content_type: str, width: int) -> tuple[Probe, Image.Image]:
    """Probe the whole image, and return from the same decoding a picture whose longer side is about `width`."""
    check_end(file, content_type)
    if content_type == "image/webp" and (wide := large.webp_size(file)):
        found, picture = large.probe(file, *wide, step=max(1, round(max(wide) / width)))
        return found, _flat(picture)
    with opened(file, content_type) as image:
        size = displayed_size(image, content_type)
        # Whole-number steps, in the JPEG decoder itself where it can: a tenth of the time of resampling.
        step = max(1, round(max(image.size) / width))
        image.draft("RGB", (max(1, image.width // step), max(1, image.height // step)))
        image.load()
        picture = _reduced(image, max(1, round(max(image.size) / width)))
        if content_type == "image/jpeg" and _orientation(image) > 1:
            picture = ImageOps.exif_transpose(picture)
        return Probe("image", content_type, *size, frames=count_frames(image, content_type)), picture


def count_frames(image: Image.Image, content_type: str) -> int:
    """Decode every frame of an animation, and return how many there are. Raises `InvalidMedia` for too many."""
    if content_type == "image/jpeg" or not getattr(image, "is_animated", False):
        return 1
    budget = Budget(MOST_PIXELS)
    for index in range(1, MAX_FRAMES + 1):
        try:
            image.seek(index)
        except EOFError:
            return index
        if not budget.spend(*image.size):
            break
        image.load()
    raise InvalidMedia(f"The animation has more than {MAX_FRAMES:,} frames or {MOST_PIXELS:,} pixels.")


def displayed_size(image: Image.Image, content_type: str) -> tuple[int, int]:
    """Return width and height as a viewer shows them, with the camera's orientation."""
    if content_type == "image/jpeg" and _orientation(image) in SIDEWAYS:
        return image.height, image.width
    return image.size


def _orientation(image: Image.Image) -> int:
    """Return how the camera was held, from 1 to 8; 1 when the EXIF data cannot be read, as of some programs."""
    try:
        found = image.getexif().get(ORIENTATION)
    except DECODE_ERRORS:
        return 1
    return found if isinstance(found, int) else 1


def _reduced(image: Image.Image, step: int) -> Image.Image:
    if image.mode in REDUCIBLE:
        return _flat(_reduced_in_strips(image, step) if step > 1 else image.copy())
    if image.width * image.height > SMALL_PIXELS:  # as RGB it would not fit beside itself
        size = max(1, image.width // step), max(1, image.height // step)
        return _flat(image.resize(size, Image.Resampling.NEAREST))
    return _flat(_flat(image).reduce(step))


def _reduced_in_strips(image: Image.Image, step: int) -> Image.Image:
    """Return what `image.reduce(step)` would: that copies the whole picture when it has transparency."""
    rows = step * max(1, STRIP_PIXELS // (image.width * step))
    small = Image.new(image.mode, (-(-image.width // step), -(-image.height // step)))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        small.paste(strip.reduce(step), (0, top // step))
    return small


def _flat(image: Image.Image) -> Image.Image:
    """Return the picture as RGB, with transparency on white."""
    if image.mode == "RGB":
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    see_through = image.convert("RGBA")
    white = Image.new("RGBA", see_through.size, "white")
    return Image.alpha_composite(white, see_through).convert("RGB")
