"""The way in: a file of unknown content is probed, pictured, or refused with `InvalidMedia`."""

from __future__ import annotations

import os
from typing import BinaryIO, Literal

from av.video.stream import VideoStream

from backend.core.errors import InvalidMedia
from backend.media.inside import images, parts, videos
from backend.media.inside.stills import FRAME_OPTIONS, POSTER_OPTIONS, save, to_image
from backend.media.kinds import FRAME_TYPE, HEAD_BYTES, Probe, sniff

POSTER_WIDTH = 640
POSTER_AT = 0.1  # films often begin black


def probe(file: BinaryIO, *, full: bool = True) -> Probe:
    """What a file is. With `full` it is decoded as far as needed to know that it is whole.

    Without, the header is believed: frames are not counted and a video's size is the one before rotation.
    """
    content_type = read_type(file)
    if content_type in images.FORMATS:
        return images.probe_image(file, content_type, full=full)
    return videos.probe_video(file, content_type, full=full)


def inspect(file: BinaryIO, target: BinaryIO, *, width: int = POSTER_WIDTH) -> Probe:
    """Probe in full and write the poster, in one go; sound has no poster and nothing is written."""
    content_type = read_type(file)
    if content_type in images.FORMATS:
        found, picture = images.shrink(file, content_type, width)
    else:
        with videos.opened(file, content_type) as (container, stream):
            found = videos.read(file, container, stream, content_type)
            if not isinstance(stream, VideoStream):
                return found
            picture = to_image(videos.picture_at(container, stream, POSTER_AT), width)
    save(picture, target, POSTER_OPTIONS)
    return found


def poster(file: BinaryIO, target: BinaryIO, *, width: int = POSTER_WIDTH) -> Probe:
    """Write a JPEG of an image, or of a video near its beginning; its longer side is about `width`."""
    content_type = read_type(file)
    if content_type in images.FORMATS:
        _, picture = images.shrink(file, content_type, width)
    else:
        with videos.opened_video(file, content_type) as (container, stream):
            picture = to_image(videos.picture_at(container, stream, POSTER_AT), width)
    save(picture, target, POSTER_OPTIONS)
    return Probe("image", FRAME_TYPE, *picture.size, frames=1)


def frame(file: BinaryIO, target: BinaryIO, *, which: Literal["first", "last"]) -> Probe:
    """Write the first or the very last picture of a video as a JPEG of full size, and say what that is."""
    with videos.opened_video(file, read_type(file)) as (container, stream):
        if which == "first":
            picture = to_image(videos.picture_at(container, stream, 0))
        else:
            picture = to_image(videos.last_picture(container, stream))
    save(picture, target, FRAME_OPTIONS)
    return Probe("image", FRAME_TYPE, *picture.size, frames=1)


def read_type(file: BinaryIO) -> str:
    """What the first bytes tell, of a file in no more parts than a decoder can walk through."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    content_type = sniff(file.read(HEAD_BYTES))
    if content_type is None:
        raise InvalidMedia()
    parts.check_count(file, length, content_type)
    return content_type
