"""A film as it is written here: H.264 and AAC in an MP4 that plays before it is loaded whole, at one size and rate."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.container
from av.audio.stream import AudioStream
from av.video.frame import PictureType
from av.video.stream import VideoStream

from backend.core.errors import InvalidMedia
from backend.disk import room
from backend.media.kinds import Probe

MOST_S = 1800
MOST_BYTES = 1_000_000_000
SOUND_RATE = 48_000
SAMPLE_BYTES = 4  # two channels of 16 bits
BLOCK = 1024  # samples of one AAC frame
# One thread, because the cage has no more. Few pictures that wait for later ones, because each lies in memory: with
# this the process has 190 MB for 1920 x 1080 and 540 MB for 3840 x 2160, however long the film is.
ENCODER = {"preset": "veryfast", "crf": "20", "threads": "1", "bf": "0", "rc-lookahead": "10", "sync-lookahead": "0"}


class Film:
    """The film that is being written, picture by picture; sound and pictures are given for about the same time."""

    def __init__(self, target: BinaryIO, size: tuple[int, int], rate: Fraction, *, with_sound: bool) -> None:
        self.size, self.rate = size, rate
        self.pictures = 0
        self.samples = 0
        self._at = _At(target.fileno())
        # `faststart` moves the index to the front at the end. For that ffmpeg opens the file by its name once more,
        # and here files have no names: it gets the same descriptor again, with a position of its own.
        again: Callable[..., Any] = lambda name, flags, options: _At(target.fileno())  # noqa: E731
        self._container = av.open(self._at, "w", format="mp4", options={"movflags": "+faststart"}, io_open=again)
        self._shown = self._add_pictures()
        self._heard = self._add_sound() if with_sound else None

    @property
    def has_sound(self) -> bool:
        """Whether it has a track for sound."""
        return self._heard is not None

    def show(self, picture: av.VideoFrame) -> None:
        """Add one picture of its size. Raises InvalidMedia when the film becomes too long, StorageFull."""
        if self.pictures > MOST_S * self.rate:
            raise InvalidMedia(f"The film would be longer than {MOST_S // 60} minutes.")
        picture.pts, picture.time_base = self.pictures, 1 / self.rate
        picture.pict_type = PictureType.NONE  # the encoder chooses: as decoded it says what it was before
        self._container.mux(self._shown.encode(picture))
        self.pictures += 1

    def play(self, sound: bytes) -> None:
        """Add sound: 16 bits, two channels, SOUND_RATE samples a second. Raises StorageFull."""
        if self._heard is None:
            return
        for start in range(0, len(sound), BLOCK * SAMPLE_BYTES):
            block = sound[start : start + BLOCK * SAMPLE_BYTES]
            frame = av.AudioFrame(format="s16", layout="stereo", samples=len(block) // SAMPLE_BYTES)
            plane = frame.planes[0]
            plane.update(block.ljust(plane.buffer_size, b"\0"))
            frame.sample_rate, frame.time_base, frame.pts = SOUND_RATE, Fraction(1, SOUND_RATE), self.samples
            self._container.mux(self._heard.encode(frame))
            self.samples += frame.samples

    def close(self) -> Probe:
        """Finish the file; what it is. Raises StorageFull."""
        self._container.mux(self._shown.encode())
        if self._heard is not None:
            self._container.mux(self._heard.encode())
        self._container.close()
        return Probe("video", "video/mp4", *self.size, float(self.pictures / self.rate), self.pictures)

    def _add_pictures(self) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=self.rate, options=ENCODER)
        stream.width, stream.height = self.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = 1 / self.rate
        return stream

    def _add_sound(self) -> AudioStream:
        return self._container.add_stream("aac", rate=SOUND_RATE, layout="stereo", options={"b": "160000"})


class _At:
    """A position in an open file. Descriptors that were duplicated would share one."""

    name = "film"

    def __init__(self, file: int) -> None:
        self._file = file
        self._at = 0

    def write(self, content: bytes) -> int:
        if self._at + len(content) > MOST_BYTES:
            raise InvalidMedia(f"The film would have more than {MOST_BYTES // 1_000_000:,} MB.")
        with room.needed():
            written = os.pwrite(self._file, content, self._at)
        self._at += written
        return written

    def read(self, length: int) -> bytes:
        content = os.pread(self._file, length, self._at)
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence)
        self._at = offset + (os.fstat(self._file).st_size if start is None else start)
        return self._at

    def tell(self) -> int:
        return self._at
