"""A film that is read to be part of another one: from one second to another, at the other's size and rate."""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO

import av
import av.container
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from backend.core.errors import InvalidMedia
from backend.media.inside import inspection, shapes, videos
from backend.media.inside.films import MOST_S, SAMPLE_BYTES, SOUND_RATE, Film

RATES = (Fraction(1), Fraction(60))  # pictures a second: what a film may say of itself
USUAL_RATE = Fraction(24)
BEYOND_S = 0.1  # a film may end so much before the second that was named: headers round
GAP_S = 0.1  # sound that is missing for less is a matter of rounding


def measure(file: BinaryIO) -> tuple[tuple[int, int], Fraction, bool]:
    """A film's size as shown, its pictures a second, and whether it has sound. Raises InvalidMedia."""
    with videos.opened_video(file, inspection.read_type(file)) as (container, stream):
        picture = videos.picture_at(container, stream, 0)
        return shapes.upright(picture, stream), _rate(stream), _sound(container) is not None


def add(file: BinaryIO, film: Film, from_s: float = 0.0, to_s: float | None = None) -> None:
    """Put the film between two seconds, without `to_s` until its end, behind what is there.

    Raises InvalidMedia: for what cannot be read, and when the film ends before either second.
    """
    with videos.opened_video(file, inspection.read_type(file)) as (container, stream):
        _Clip(film, container, stream, from_s, to_s).add()


class _Clip:
    """Times here are seconds since the cut. The picture of a moment is the last one that began before it."""

    def __init__(
        self, film: Film, container: av.container.InputContainer, stream: VideoStream, from_s: float, to_s: float | None
    ) -> None:
        self._film, self._container, self._stream = film, container, stream
        self._sound = _sound(container) if film.has_sound else None
        self._shaper = shapes.Shaper(stream, film.size)
        self._resampler = av.AudioResampler(format="s16", layout="stereo", rate=SOUND_RATE)
        self._from_s, self._cut_s = from_s, (container.start_time or 0) / av.time_base + from_s
        self._length_s = None if to_s is None else to_s - from_s
        self._before = film.pictures
        # By the pictures, not by the sound before: so sound never drifts from clip to clip.
        self._first_sample = _samples(film.pictures / film.rate)
        self._last: av.VideoFrame | None = None
        self._ends_s = 0.0  # when the last of what was decoded ends

    def add(self) -> None:
        if self._from_s > 0:
            videos.enter(self._container, self._stream, self._cut_s)
        over: set[type] = set()
        tracks: list[videos.Media] = [self._stream, *([self._sound] if self._sound else [])]
        for frame in self._container.decode(*tracks):
            if not isinstance(frame, av.VideoFrame | av.AudioFrame):
                continue
            at_s = self._ends_s if frame.time is None else float(frame.time) - self._cut_s
            if self._length_s is not None and at_s >= self._length_s:
                over.add(type(frame))
                if len(over) == len(tracks):
                    break
            if isinstance(frame, av.VideoFrame):
                self._see(frame, at_s)
            else:
                self._hear(frame, at_s)
        self._finish()

    def _see(self, picture: av.VideoFrame, at_s: float) -> None:
        lasts_s = float(picture.duration * picture.time_base) if picture.duration and picture.time_base else 0.0
        self._ends_s = max(self._ends_s, at_s + (lasts_s or 1 / float(self._film.rate)))
        if self._last is not None:
            self._hold(at_s)
        self._last = picture

    def _hear(self, frame: av.AudioFrame, at_s: float) -> None:
        self._ends_s = max(self._ends_s, at_s + frame.samples / frame.sample_rate)
        sound = b"".join(bytes(one.planes[0])[: one.samples * SAMPLE_BYTES] for one in self._resampler.resample(frame))
        missing = self._first_sample + _samples(at_s) - self._film.samples
        if missing > _samples(GAP_S):
            self._be_silent(missing)
        elif missing < 0 and self._film.samples <= self._first_sample:
            sound = sound[-missing * SAMPLE_BYTES :]
        self._play(sound)

    def _finish(self) -> None:
        """The last picture stands until the end, and so does silence. Raises InvalidMedia when the end is not there."""
        if self._last is None or self._ends_s <= 0 or self._ends_s < (self._length_s or 0.0) - BEYOND_S:
            raise InvalidMedia(
                f"The film ends at second {max(self._from_s + self._ends_s, 0):.2f}, before the wanted part does."
            )
        if self._length_s is None:
            self._length_s = self._ends_s
        self._hold(self._length_s)
        if self._film.pictures == self._before:
            self._film.show(self._shaper.shape(self._last))
        self._be_silent(_samples(self._film.pictures / self._film.rate) - self._film.samples)

    def _hold(self, until_s: float) -> None:
        """Show the last picture until this second: so often that the film is as long, to half a picture."""
        rate, picture = self._film.rate, None
        until_s = until_s if self._length_s is None else min(until_s, self._length_s)
        while (self._film.pictures - self._before + 0.5) / rate < until_s and self._last is not None:
            picture = picture or self._shaper.shape(self._last)
            self._film.show(picture)
            if self._sound is None:
                self._be_silent(_samples(self._film.pictures / rate) - self._film.samples)

    def _play(self, sound: bytes) -> None:
        if self._length_s is not None:
            left = self._first_sample + _samples(self._length_s) - self._film.samples
            sound = sound[: max(left, 0) * SAMPLE_BYTES]
        self._film.play(sound)

    def _be_silent(self, samples: int) -> None:
        if samples > MOST_S * SOUND_RATE:
            raise InvalidMedia("The sound has a gap that is too long.")
        while samples > 0 and self._film.has_sound:
            self._play(bytes(min(samples, SOUND_RATE) * SAMPLE_BYTES))
            samples -= SOUND_RATE


def _rate(stream: VideoStream) -> Fraction:
    said = stream.guessed_rate or stream.average_rate or USUAL_RATE
    return min(max(Fraction(said), RATES[0]), RATES[1])


def _sound(container: av.container.InputContainer) -> AudioStream | None:
    """The first track of sound, if it is of a kind that is taken here."""
    for stream in container.streams.audio:
        videos.check_codec(stream)
        stream.codec_context.thread_count = 1
        return stream
    return None


def _samples(seconds: float | Fraction) -> int:
    return round(seconds * SOUND_RATE)
