"""Video and sound, decoded by PyAV with one named demuxer and no protocol but the file itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import av.container
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from backend.errors import InvalidMedia
from backend.media.endings import check_length
from backend.media.kinds import Probe, check_size, decoding

DEMUXERS = {"video/mp4": "mp4", "video/webm": "webm", "audio/mpeg": "mp3", "audio/wav": "wav"}
# A playlist or a concat script never gets as far as its demuxer; this holds for references inside a container.
OPTIONS = {"protocol_whitelist": "file", "enable_drefs": "0"}
AUDIO_TYPES = {"video/mp4": "audio/mp4", "video/webm": "audio/webm"}
MISSING_S = 0.5  # containers and streams disagree about the end by less than this

Media = VideoStream | AudioStream


@contextmanager
def opened(path: Path, content_type: str) -> Iterator[tuple[av.container.InputContainer, Media]]:
    """The container and its first video stream, else its first audio stream; sizes are checked."""
    with decoding(), av.open(str(path), format=DEMUXERS[content_type], container_options=OPTIONS) as container:
        streams: list[Media] = [*container.streams.video, *container.streams.audio]
        if not streams:
            raise InvalidMedia("There is no picture and no sound in the file.")
        stream = streams[0]
        if isinstance(stream, VideoStream):
            check_size(stream.width, stream.height)
            stream.thread_type = "AUTO"
        yield container, stream


@contextmanager
def opened_video(path: Path, content_type: str) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    """As `opened`, for a file that must have pictures that move."""
    if content_type not in DEMUXERS:
        raise InvalidMedia("The file is not a video.")
    with opened(path, content_type) as (container, stream):
        if not isinstance(stream, VideoStream):
            raise InvalidMedia("The file is not a video.")
        yield container, stream


def probe_video(path: Path, content_type: str, *, full: bool) -> Probe:
    """What a video or sound is; with `full` everything is read and its end is decoded."""
    with opened(path, content_type) as (container, stream):
        if full:
            return read(path, container, stream, content_type)
        return describe(container, stream, content_type)


def describe(container: av.container.InputContainer, stream: Media, content_type: str) -> Probe:
    """What the header says."""
    duration_s = container.duration / av.time_base if container.duration else None
    if isinstance(stream, VideoStream):
        return Probe("video", content_type, stream.width, stream.height, duration_s, stream.frames or None)
    return Probe("audio", AUDIO_TYPES.get(content_type, content_type), duration_s=duration_s)


def read(path: Path, container: av.container.InputContainer, stream: Media, content_type: str) -> Probe:
    """Read every packet and decode the end; `InvalidMedia` when less is there than the header says."""
    check_length(path, content_type)
    header = describe(container, stream, content_type)
    _unit_s(stream)
    packets, end_s = 0, 0.0
    # The end is that of the longest: sound may go on after the last picture, and a still recording has no more.
    for packet in container.demux(*container.streams.video, *container.streams.audio):
        if packet.is_corrupt:  # its last bytes are missing
            raise InvalidMedia("The file is cut short.")
        if packet.size and packet.pts is not None and packet.time_base:
            packets += packet.stream_index == stream.index
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    if packets < (header.frames or 1) or end_s < (header.duration_s or 0) * 0.95 - MISSING_S:
        raise InvalidMedia("The file is cut short.")
    if isinstance(stream, VideoStream):
        width, height = displayed_size(last_picture(container, stream))
        return replace(header, width=width, height=height, duration_s=header.duration_s or end_s, frames=packets)
    _decode_one(container, stream)
    return replace(header, duration_s=header.duration_s or end_s)


def picture_at(container: av.container.InputContainer, stream: VideoStream, share: float) -> av.VideoFrame:
    """The picture at a share (0 to 1) of the duration."""
    wanted_s = (container.duration or 0) / av.time_base * share
    picture = None
    for picture in _pictures_from(container, stream, wanted_s):
        if picture.time is None or picture.time >= wanted_s:
            break
    if picture is None:
        raise InvalidMedia("The video has no pictures.")
    return picture


def last_picture(container: av.container.InputContainer, stream: VideoStream) -> av.VideoFrame:
    """The very last picture: decoded on from the last point one can enter."""
    pictures = deque(_pictures_from(container, stream, (container.duration or 0) / av.time_base), maxlen=1)
    return pictures[0] if pictures else picture_at(container, stream, 1)


def displayed_size(picture: av.VideoFrame) -> tuple[int, int]:
    """Width and height as a player shows them, with the camera's rotation."""
    if picture.rotation % 180:
        return picture.height, picture.width
    return picture.width, picture.height


def _pictures_from(container: av.container.InputContainer, stream: VideoStream, at_s: float) -> Iterator[av.VideoFrame]:
    container.seek(int(at_s / _unit_s(stream)), stream=stream)
    yield from container.decode(stream)


def _unit_s(stream: Media) -> Fraction:
    if not stream.time_base:
        raise InvalidMedia("The file does not say how fast it plays.")
    return stream.time_base


def _decode_one(container: av.container.InputContainer, stream: AudioStream) -> None:
    container.seek(0)
    if next(container.decode(stream), None) is None:
        raise InvalidMedia("The sound cannot be decoded.")
