"""Videos: a picture slowly zoomed and panned, H.264 in an MP4 that starts playing at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image, ImageOps

from backend.emulator.kit.render.pictures import Size, caption

FPS = 24
SHORT_SIDES = {"standard": 720, "pro": 1080}
SQUARE_SIDES = {"standard": 960, "pro": 1440}


@dataclass(frozen=True)
class Film:
    """What is to be filmed, for `duration_s` seconds at 24 frames a second."""

    prompt: str
    seed: str
    start: Image.Image
    end: Image.Image | None
    mode: str
    duration_s: int

    @property
    def size(self) -> Size:
        """16:9, 9:16 or square, whatever is nearest to the start picture."""
        proportion = self.start.width / self.start.height
        if 0.9 < proportion < 1.1:
            return SQUARE_SIDES[self.mode], SQUARE_SIDES[self.mode]
        short = SHORT_SIDES[self.mode]
        return (short * 16 // 9, short) if proportion > 1 else (short, short * 16 // 9)


def encode(film: Film, target: Path, report: Callable[[float], None]) -> None:
    """Writes the MP4; `report` gets the share that is done after every frame and may raise to stop."""
    count = film.duration_s * FPS
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "26"})
        stream.width, stream.height = film.size
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(_frames(film, count), start=1):
            container.mux(stream.encode(_frame(image)))
            report(number / count)
        container.mux(stream.encode())


def _frame(image: Image.Image) -> av.VideoFrame:
    frame: av.VideoFrame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
    return frame


def _frames(film: Film, count: int) -> Iterator[Image.Image]:
    start = ImageOps.fit(film.start, film.size, Image.Resampling.BICUBIC)
    end = ImageOps.fit(film.end, film.size, Image.Resampling.BICUBIC) if film.end else None
    strip, top = caption(film.size, film.prompt)
    dice = random.Random(film.seed)  # nosec B311 - a camera move, not a secret
    move = dice.uniform(-1, 1), dice.uniform(-1, 1)
    for number in range(count):
        share = number / max(1, count - 1)
        image = _shot(start, share, move)
        if end:
            image = Image.blend(image, end, share * share * (3 - 2 * share))
        if strip:
            image.paste(strip, (0, top), strip)
        yield image


def _shot(picture: Image.Image, share: float, move: tuple[float, float]) -> Image.Image:
    """The picture seen through a window that shrinks by a sixth and drifts, smoothly between pixels."""
    scale = 1 - share / 6
    width, height = picture.width * scale, picture.height * scale
    left = (picture.width - width) * (1 + move[0] * share) / 2
    top = (picture.height - height) * (1 + move[1] * share) / 2
    window = (left, top, left + width, top + height)
    return picture.resize(picture.size, Image.Resampling.BILINEAR, box=window)
