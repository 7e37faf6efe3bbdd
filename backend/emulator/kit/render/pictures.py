"""Still images: a composed scene, or a given picture changed, with the prompt written on it."""

from __future__ import annotations

import random
import struct
import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import IO

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

Size = tuple[int, int]
Colour = tuple[int, int, int]

SIZES: dict[str, Size] = {
    "1:1": (1024, 1024),
    "2:3": (832, 1248),
    "3:2": (1248, 832),
    "3:4": (864, 1184),
    "4:3": (1184, 864),
    "4:5": (896, 1152),
    "5:4": (1152, 896),
    "9:16": (768, 1344),
    "16:9": (1344, 768),
    "21:9": (1536, 672),
}
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
PALETTES: tuple[tuple[str, str, str, str], ...] = (
    ("#12355b", "#f29e4c", "#f1c453", "#0b2239"),
    ("#2d1e2f", "#f15946", "#f9c22e", "#53b3cb"),
    ("#264653", "#2a9d8f", "#e9c46a", "#e76f51"),
    ("#355070", "#b56576", "#eaac8b", "#1d2b45"),
    ("#1b4332", "#74c69d", "#d8f3dc", "#081c15"),
    ("#240046", "#9d4edd", "#ffba08", "#10002b"),
)


def picture(prompt: str, seed: str, size: Size, base: Image.Image | None) -> Image.Image:
    """An RGB image of `size`; with `base` that picture, fitted and tinted."""
    dice = random.Random(seed)  # nosec B311 - a picture, not a secret
    palette = dice.choice(PALETTES)
    canvas = _tinted(base, size, palette) if base else _scene(dice, size, palette)
    write(canvas, prompt)
    return canvas


def encode(image: Image.Image, output_format: str) -> bytes:
    """`jpg` or `png`."""
    buffer = BytesIO()
    if output_format == "png":
        image.save(buffer, "PNG", compress_level=3)
    else:
        image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def matching_size(base: Image.Image | None) -> Size:
    """About a megapixel in the picture's own proportions, both sides multiples of 16."""
    if base is None:
        return SIZES["1:1"]
    scale = (1024 * 1024 / (base.width * base.height)) ** 0.5
    return _rounded(base.width * scale), _rounded(base.height * scale)


def _rounded(length: float) -> int:
    return max(16, min(4096, round(length / 16) * 16))


def _scene(dice: random.Random, size: Size, palette: Sequence[str]) -> Image.Image:
    canvas = _gradient(size, palette[0], palette[1], dice.choice((0, 15, -15)))
    width, height = size
    radius = dice.randint(min(size) // 12, min(size) // 6)
    sun = dice.randint(radius, width - radius), dice.randint(height // 8, height // 2)
    _glow(canvas, sun, radius, palette[2])
    for depth in range(3):
        ridge = _ridge(dice, size, height * (50 + 14 * depth) // 100)
        colour = Image.blend(Image.new("RGB", size, palette[1]), Image.new("RGB", size, palette[3]), 0.4 + 0.3 * depth)
        canvas.paste(colour, mask=ridge)
    return canvas


def _gradient(size: Size, top: str, bottom: str, angle: int) -> Image.Image:
    ramp = Image.linear_gradient("L").rotate(angle, resample=Image.Resampling.BILINEAR, expand=True)
    inside = ramp.crop((ramp.width // 5, ramp.height // 5, ramp.width * 4 // 5, ramp.height * 4 // 5))
    return ImageOps.colorize(inside.resize(size, Image.Resampling.BICUBIC), top, bottom)


def _glow(canvas: Image.Image, centre: tuple[int, int], radius: int, colour: str) -> None:
    mask = Image.new("L", canvas.size)
    x, y = centre
    draw = ImageDraw.Draw(mask)
    draw.ellipse((x - radius * 2, y - radius * 2, x + radius * 2, y + radius * 2), fill=70)
    mask = mask.filter(ImageFilter.BoxBlur(radius / 2))
    ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    canvas.paste(Image.new("RGB", canvas.size, colour), mask=mask)


def _ridge(dice: random.Random, size: Size, level: int) -> Image.Image:
    width, height = size
    steps = dice.randint(5, 9)
    points = [(width * i // steps, level + dice.randint(-height // 10, height // 12)) for i in range(steps + 1)]
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([(0, height), *points, (width, height)], fill=255)
    return mask


def _tinted(base: Image.Image, size: Size, palette: Sequence[str]) -> Image.Image:
    fitted = ImageOps.fit(base, size, Image.Resampling.BICUBIC)
    light = ImageChops.screen(fitted, _gradient(size, palette[0], palette[1], 15))
    return Image.blend(fitted, light, 0.35)


def write(canvas: Image.Image, text: str) -> None:
    """The first lines of `text` in a dark strip at the bottom, dense enough to cover an older one."""
    strip, top = caption(canvas.size, text)
    if strip:
        canvas.paste(strip, (0, top), strip)


def caption(size: Size, text: str) -> tuple[Image.Image | None, int]:
    """A transparent strip with `text`, and where its upper edge goes; None for no text."""
    width, height = size
    points = max(12, min(size) // 26)
    font = ImageFont.load_default(points)
    lines = textwrap.wrap(_printable(text), max(8, int(width / (points * 0.56))), max_lines=3, placeholder=" ...")
    if not lines:
        return None, height
    line_height = points * 4 // 3
    strip = Image.new("RGBA", (width, line_height * len(lines) + points), (12, 12, 18, 238))
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((points, points // 2 + number * line_height), line, fill=(255, 255, 255, 255), font=font)
    return strip, height - strip.height


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:400])


def open_picture(source: IO[bytes], *, decode: bool) -> Image.Image:
    """A real picture as upright RGB, or with no `decode` just its head; raises ValueError when it is none."""
    try:
        image = Image.open(source, formats=("PNG", "JPEG", "WEBP", "GIF"))
        if image.width * image.height > 50_000_000:
            raise ValueError("the image has more than 50 megapixels")
        return ImageOps.exif_transpose(image).convert("RGB") if decode else image
    except _UNREADABLE as wrong:
        raise ValueError(f"cannot identify image file ({type(wrong).__name__})") from wrong
