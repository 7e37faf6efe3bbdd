"""Video and sound, decoded by PyAV with one named demuxer and a few decoders.

Of a film its packets are read and only its end is decoded, within a budget of pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import BinaryIO

import av
import av.container
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from backend.core.errors import InvalidMedia
from backend.media.inside.bounds import DECODER_PIXELS, Budget, check_size, decoding
from backend.media.inside.endings import check_length
from backend.media.kinds import Probe

DEMUXERS = {"video/mp4": "mp4", "video/webm": "webm", "audio/mpeg": "mp3", "audio/wav": "wav"}
VIDEO_CODECS = frozenset({"h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "prores", "mjpeg"})
AUDIO_CODECS = frozenset({"aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "flac"})
CODECS = sorted(VIDEO_CODECS | AUDIO_CODECS | {name for name in av.codecs_available if name.startswith("pcm_")})
# The file is the only thing there is: no protocol opens another one. ffmpeg itself decodes a little while it opens
# a file, so it has to know the codecs that are taken.
OPTIONS = {
    "protocol_whitelist": "file",
    "enable_drefs": "0",
    "codec_whitelist": ",".join(CODECS),
    "max_streams": "64",
}
LIMITS = {"max_pixels": str(DECODER_PIXELS), "threads": "1"}  # the decoder's own: a stream may change its size
AUDIO_TYPES = {"video/mp4": "audio/mp4", "video/webm": "audio/webm"}
MISSING_S = 0.5  # containers and streams disagree about the end by less than this
MAX_PACKETS = 2_000_000  # eleven hours of sound
LOOK_PIXELS = 600_000_000  # decoded for the end or for a poster: 290 pictures of 1920 x 1080
SEARCH_PIXELS = 3_000_000_000  # decoded on the way to a last picture that is wanted

Media = VideoStream | AudioStream


@dataclass
class Packets:
    """What the packets say: how many the stream has, and when the last one of any stream ends, in seconds."""

    count: int = 0
    end_s: float = 0.0


@contextmanager
def opened(file: BinaryIO, content_type: str) -> Iterator[tuple[av.container.InputContainer, Media]]:
    """Open the container and its first video stream, else its first audio stream; codec and size are checked."""
    file.seek(0)
    demuxer = DEMUXERS[content_type]
    with decoding(), av.open(file, "r", format=demuxer, container_options=OPTIONS, options=LIMITS) as container:
        streams: list[Media] = [*container.streams.video, *container.streams.audio]
        if not streams:
            raise InvalidMedia("There is no picture and no sound in the file.")
        stream = streams[0]
        check_codec(stream)
        stream.codec_context.options = dict(LIMITS)
        if isinstance(stream, VideoStream):
            check_size(stream.width, stream.height)
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
        yield container, stream


@contextmanager
def opened_video(file: BinaryIO, content_type: str) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    """Open a file as `opened` does. Raises InvalidMedia when it has no moving pictures."""
    if content_type not in DEMUXERS:
        raise InvalidMedia("The file is not a video.")
    with opened(file, content_type) as (container, stream):
        if not isinstance(stream, VideoStream):
            raise InvalidMedia("The file is not a video.")
        yield container, stream


def probe_video(file: BinaryIO, content_type: str, *, full: bool) -> Probe:
    """Return what a video or sound is; with `full`, every packet is read and its end is decoded."""
    with opened(file, content_type) as (container, stream):
        if full:
            return read(file, container, stream, content_type)
        return describe(container, stream, content_type)


def describe(container: av.container.InputContainer, stream: Media, content_type: str) -> Probe:
    """Return what the header says."""
    duration_s = container.duration / av.time_base if container.duration else None
    if isinstance(stream, VideoStream):
        return Probe("video", content_type, stream.width, stream.height, duration_s, stream.frames or None)
    return Probe("audio", AUDIO_TYPES.get(content_type, content_type), duration_s=duration_s)


def read(file: BinaryIO, container: av.container.InputContainer, stream: Media, content_type: str) -> Probe:
    """Read every packet and decode the end; `InvalidMedia` when less is there than the header says."""
    at = file.tell()  # where the demuxer goes on
    check_length(file, file.seek(0, os.SEEK_END), content_type)
    file.seek(at)
    header = describe(container, stream, content_type)
    packets = _read_packets(container, stream)
    if packets.count < (header.frames or 1) or packets.end_s < (header.duration_s or 0) * 0.95 - MISSING_S:
        raise InvalidMedia("The file is cut short.")
    length_s = header.duration_s or packets.end_s
    if isinstance(stream, VideoStream):
        width, height = displayed_size(_decode_end(container, stream))
        return replace(header, width=width, height=height, duration_s=length_s, frames=packets.count)
    _decode_one(container, stream)
    return replace(header, duration_s=length_s)


def picture_at(container: av.container.InputContainer, stream: VideoStream, share: float) -> av.VideoFrame:
    """Return the picture at a share (0 to 1) of the duration, or the nearest one before it within the budget."""
    wanted_s = (container.duration or 0) / av.time_base * share
    budget, picture = Budget(LOOK_PIXELS), None
    for picture in _pictures_from(container, stream, wanted_s):
        if not budget.spend(picture.width, picture.height) or picture.time is None or picture.time >= wanted_s:
            break
    if picture is None:
        raise InvalidMedia("The video has no pictures.")
    return picture


def last_picture(container: av.container.InputContainer, stream: VideoStream) -> av.VideoFrame:
    """Return the very last picture. Decoding begins at the last key frame; `InvalidMedia` when that is too far away."""
    budget, last = Budget(SEARCH_PIXELS), None
    for last in _pictures_from(container, stream, _length_s(container)):
        if not budget.spend(last.width, last.height):
            raise InvalidMedia("The last picture is too far from the last one that can be decoded by itself.")
    return last or picture_at(container, stream, 1)


def enter(container: av.container.InputContainer, stream: VideoStream, at_s: float) -> None:
    """Go on from the last point before this second at which one can begin to decode."""
    container.seek(int(at_s / _unit_s(stream)), stream=stream)


def displayed_size(picture: av.VideoFrame) -> tuple[int, int]:
    """Return width and height as a player shows them, with the camera's rotation."""
    if picture.rotation % 180:
        return picture.height, picture.width
    return picture.width, picture.height


def check_codec(stream: Media) -> None:
    """Raise `InvalidMedia` unless its codec is one that is taken here."""
    context = stream.codec_context
    name = context.name if context else "unknown"
    if name not in CODECS:
        raise InvalidMedia(f"The codec {name} is not taken here.")


def _read_packets(container: av.container.InputContainer, stream: Media) -> Packets:
    """Read all packets. The end is that of the longest stream: sound may go on after the last picture."""
    found = Packets()
    _unit_s(stream)
    for number, packet in enumerate(container.demux(*container.streams.video, *container.streams.audio)):
        if packet.is_corrupt:  # its last bytes are missing
            raise InvalidMedia("The file is cut short.")
        if packet.size and packet.pts is not None and packet.time_base:
            found.count += packet.stream_index == stream.index
            found.end_s = max(found.end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if number >= MAX_PACKETS:
            raise InvalidMedia(f"There are more than {MAX_PACKETS:,} packets in the file.")
    return found


def _decode_end(container: av.container.InputContainer, stream: VideoStream) -> av.VideoFrame:
    """Decode from the last key frame on, as far as the budget goes, and return the last picture that was found."""
    budget, last = Budget(LOOK_PIXELS), None
    for last in _pictures_from(container, stream, _length_s(container)):
        if not budget.spend(last.width, last.height):
            break
    return last or picture_at(container, stream, 1)


def _pictures_from(container: av.container.InputContainer, stream: VideoStream, at_s: float) -> Iterator[av.VideoFrame]:
    enter(container, stream, at_s)
    yield from container.decode(stream)


def _length_s(container: av.container.InputContainer) -> float:
    return (container.duration or 0) / av.time_base


def _unit_s(stream: Media) -> Fraction:
    if not stream.time_base:
        raise InvalidMedia("The file does not say how fast it plays.")
    return stream.time_base


def _decode_one(container: av.container.InputContainer, stream: AudioStream) -> None:
    container.seek(0)
    if next(container.decode(stream), None) is None:
        raise InvalidMedia("The sound cannot be decoded.")
