"""The way in: a file of unknown content is probed, pictured, or refused with `InvalidMedia`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from av.video.stream import VideoStream

from backend.errors import InvalidMedia
from backend.media import images, videos
from backend.media.kinds import HEAD_BYTES, Probe, sniff
from backend.media.stills import FRAME_OPTIONS, FRAME_TYPE, POSTER_OPTIONS, save, to_image

P = ParamSpec("P")
T = TypeVar("T")

POSTER_WIDTH = 640
POSTER_AT = 0.1  # films often begin black

_threads = ThreadPoolExecutor(max_workers=3, thread_name_prefix="media")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run media work in its own few threads, so that it never takes those that files and names wait for."""
    return await asyncio.get_running_loop().run_in_executor(_threads, functools.partial(work, *args, **kwargs))


def probe(path: Path, *, full: bool) -> Probe:
    """What a file is. With `full` it is decoded as far as needed to know that it is whole.

    Without, the header is believed: frames are not counted and a video's size is the one before rotation.
    """
    content_type = _content_type(path)
    if content_type in images.FORMATS:
        return images.probe_image(path, content_type, full=full)
    return videos.probe_video(path, content_type, full=full)


def inspect(path: Path, poster_target: Path, *, width: int = POSTER_WIDTH) -> Probe:
    """Probe in full and write the poster, in one go; sound has no poster and nothing is written."""
    content_type = _content_type(path)
    if content_type in images.FORMATS:
        found, picture = images.shrink(path, content_type, width)
    else:
        with videos.opened(path, content_type) as (container, stream):
            found = videos.read(path, container, stream, content_type)
            if not isinstance(stream, VideoStream):
                return found
            picture = to_image(videos.picture_at(container, stream, POSTER_AT), width)
    save(picture, poster_target, POSTER_OPTIONS)
    return found


def poster(path: Path, target: Path, *, width: int = POSTER_WIDTH) -> None:
    """Write a WebP of an image, or of a video near its beginning; its longer side is about `width`."""
    content_type = _content_type(path)
    if content_type in images.FORMATS:
        _, picture = images.shrink(path, content_type, width)
    else:
        with videos.opened_video(path, content_type) as (container, stream):
            picture = to_image(videos.picture_at(container, stream, POSTER_AT), width)
    save(picture, target, POSTER_OPTIONS)


def frame(path: Path, target: Path, *, which: Literal["first", "last"]) -> Probe:
    """Write the first or the very last picture of a video as a JPEG of full size, and say what that is."""
    with videos.opened_video(path, _content_type(path)) as (container, stream):
        if which == "first":
            picture = to_image(videos.picture_at(container, stream, 0))
        else:
            picture = to_image(videos.last_picture(container, stream))
    save(picture, target, FRAME_OPTIONS)
    return Probe("image", FRAME_TYPE, *picture.size, frames=1)


def _content_type(path: Path) -> str:
    with path.open("rb") as file:
        content_type = sniff(file.read(HEAD_BYTES))
    if content_type is None:
        raise InvalidMedia()
    return content_type
