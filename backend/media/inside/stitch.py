"""Films one after the other, as one: at the first one's size and rate, the others with black where they are smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from backend.core.errors import InvalidMedia
from backend.media.inside import clips
from backend.media.inside.films import Film
from backend.media.kinds import Probe


def stitch(*files: BinaryIO) -> Probe:
    """Write all but the last of these files into the last one; where one has no sound, there is silence.

    Raises InvalidMedia, which says which film is meant, and StorageFull.
    """
    *films, target = files
    measured = []
    for number, file in enumerate(films, 1):
        with _named(number):
            measured.append(clips.measure(file))
    size, rate, _ = measured[0]
    joined = Film(target, size, rate, with_sound=any(has_sound for _, _, has_sound in measured))
    for number, file in enumerate(films, 1):
        with _named(number):
            clips.add(file, joined)
    return joined.close()


@contextmanager
def _named(number: int) -> Iterator[None]:
    try:
        yield
    except InvalidMedia as error:
        raise InvalidMedia(f"Film {number}: {error.message}") from error
