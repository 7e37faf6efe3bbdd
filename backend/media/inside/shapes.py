"""Pictures of any size brought to one: turned upright, with square pixels, with black at the sides where they are
narrower and above and below where they are lower.
"""

from __future__ import annotations

from fractions import Fraction

import av
import av.filter
from av.video.stream import VideoStream

from backend.media.inside.bounds import check_size

_TURNS = {90: [("transpose", "cclock")], 270: [("transpose", "clock")], 180: [("hflip", ""), ("vflip", "")]}


def upright(picture: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height as a player shows them, in even numbers, as H.264 wants them."""
    width, height = _squared(picture, stream)
    if picture.rotation % 180:
        width, height = height, width
    return _even(width), _even(height)


class Shaper:
    """Brings the pictures of one stream to a size. What has it already goes through untouched."""

    def __init__(self, stream: VideoStream, size: tuple[int, int]) -> None:
        self._stream, self._size = stream, size
        self._graph: av.filter.Graph | None = None
        self._made_for: tuple[object, ...] = ()

    def shape(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture at the size. Raises InvalidMedia for one too large: a stream may change its size at any time."""
        check_size(picture.width, picture.height)
        made_for = (picture.width, picture.height, picture.format.name, picture.rotation)
        if (*self._size, "yuv420p", 0) == made_for and _squared(picture, self._stream) == self._size:
            return picture
        if self._graph is None or made_for != self._made_for:
            self._graph, self._made_for = self._build(picture), made_for
        self._graph.vpush(picture)
        return self._graph.vpull()

    def _build(self, picture: av.VideoFrame) -> av.filter.Graph:
        wide, high = self._size
        width, height = upright(picture, self._stream)
        fit = min(Fraction(wide, width), Fraction(high, height))
        width, height = min(wide, _even(width * fit)), min(high, _even(height * fit))
        at = (_even((wide - width) / 2) if wide > width else 0, _even((high - height) / 2) if high > height else 0)
        steps = [
            *_TURNS.get(round(picture.rotation) % 360, []),
            ("scale", f"{width}:{height}:flags=bicubic:out_range=tv"),
            ("format", "yuv420p"),
            ("pad", f"{wide}:{high}:{at[0]}:{at[1]}:black"),
            ("setsar", "1"),
        ]
        graph = av.filter.Graph()
        graph.threads = 1
        places = [
            graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
            )
        ]
        places += [graph.add(name, words) for name, words in [*steps, ("buffersink", "")]]
        graph.link_nodes(*places).configure()
        return graph


def _squared(picture: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Its size in square pixels, as it lies in the file."""
    ratio = stream.sample_aspect_ratio
    known = ratio and Fraction(1, 4) <= ratio <= 4  # a ratio beyond that is a mistake
    return round(picture.width * ratio) if ratio and known else picture.width, picture.height


def _even(length: float | Fraction) -> int:
    return max(2, int(length) // 2 * 2)
