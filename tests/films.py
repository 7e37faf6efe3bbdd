"""Small films of every sort, made for the tests, and what came of them: decoded whole."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image

DARKEST, A_SECOND = 20, 100  # the pictures are as bright as they are late, so one picture tells when it is shown


def film(
    path: Path,
    *,
    size: tuple[int, int] = (160, 120),
    rate: int = 24,
    seconds: float = 2.0,
    times: Sequence[float] = (),
    codec: str = "libx264",
    kind: str = "mp4",
    pixels: str = "yuv420p",
    sound_s: float = 0.0,
    sound_rate: int = 44100,
    layout: str = "stereo",
) -> Path:
    """Write a film; with `times` its pictures are shown at these seconds and no others. Its sound is one tone."""
    with av.open(str(path), "w", format=kind) as container:
        shown: Any = container.add_stream(codec, rate=rate, options={"x265-params": "log-level=none"})
        shown.width, shown.height, shown.pix_fmt = *size, pixels
        unit = Fraction(1, 1000) if times else Fraction(1, rate)
        shown.codec_context.time_base = unit
        audio, sound_rate = ("aac", sound_rate) if kind == "mp4" else ("libopus", 48000)
        heard: Any = container.add_stream(audio, rate=sound_rate, layout=layout) if sound_s else None
        for at_s in times or [number / rate for number in range(round(seconds * rate))]:
            grey = DARKEST + round(at_s * A_SECOND)
            picture = av.VideoFrame.from_image(Image.new("RGB", size, (grey, grey, grey)))
            picture.pts, picture.time_base = round(at_s / unit), unit
            container.mux(shown.encode(picture))
        container.mux(shown.encode())
        if heard:
            for frame in _tone(round(sound_s * sound_rate), sound_rate, layout):
                container.mux(heard.encode(frame))
            container.mux(heard.encode())
    return path


def _tone(samples: int, rate: int, layout: str) -> list[av.AudioFrame]:
    wave = [struct.pack("<h", int(9000 * math.sin(2 * math.pi * 440 * n / rate))) for n in range(samples)]
    channels, frames = 1 if layout == "mono" else 2, []
    for start in range(0, samples, 1024):
        part = b"".join(each * channels for each in wave[start : start + 1024])
        frame = av.AudioFrame(format="s16", layout=layout, samples=len(part) // (2 * channels))
        frame.planes[0].update(part.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        frames.append(frame)
    return frames


def turned(path: Path) -> Path:
    """Say in the file that its pictures are to be turned by a quarter clockwise, as a telephone held upright does."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows times, ids, layer and volume
    content[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@dataclass(frozen=True)
class Seen:
    """A film, decoded."""

    size: tuple[int, int]
    rate: float
    times: list[float]
    pictures: list[Image.Image]
    codec: str
    rotation: int
    sound_s: float | None
    loud: list[bool]  # for each tenth of a second, whether there is sound
    starts_fast: bool

    @property
    def seconds(self) -> float:
        return len(self.times) / self.rate

    def original_s(self, at_s: float) -> float:
        """Which second of the original is shown at this one."""
        picture = self.pictures[min(int(at_s * self.rate), len(self.pictures) - 1)]
        return (self.grey(at_s, (picture.width // 2, picture.height // 2)) - DARKEST) / A_SECOND

    def grey(self, at_s: float, place: tuple[int, int]) -> float:
        """How bright a place is at a second."""
        found = self.pictures[min(int(at_s * self.rate), len(self.pictures) - 1)].convert("L").getpixel(place)
        assert isinstance(found, int)
        return found


def seen(path: Path) -> Seen:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        rate, codec = float(stream.average_rate or 0), stream.codec_context.name
    with av.open(str(path)) as container:
        sounds = list(container.decode(audio=0)) if container.streams.audio else []
    content = path.read_bytes()
    return Seen(
        (frames[0].width, frames[0].height),
        rate,
        [float(frame.time or 0) for frame in frames],
        [frame.to_image() for frame in frames],
        codec,
        frames[0].rotation,
        sum(frame.samples / frame.sample_rate for frame in sounds) if sounds else None,
        _loudness(sounds),
        content.index(b"moov") < content.index(b"mdat"),
    )


def _loudness(sounds: Sequence[av.AudioFrame]) -> list[bool]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=10_000)
    samples: list[int] = []
    for frame in sounds:
        for one in resampler.resample(frame):
            samples += struct.unpack(f"<{one.samples}h", bytes(one.planes[0])[: 2 * one.samples])
    tenths = [samples[at : at + 1000] for at in range(0, len(samples), 1000)]
    return [max(map(abs, tenth)) > 1000 for tenth in tenths]
