"""A part of a film, from one second to another: decoded and encoded again, so that it begins where it was said to."""

from __future__ import annotations

from typing import BinaryIO

from backend.media.inside import clips
from backend.media.inside.films import Film
from backend.media.kinds import Probe


def trim(file: BinaryIO, target: BinaryIO, *, from_s: float, to_s: float) -> Probe:
    """Write the film between the two seconds, with its sound. Raises InvalidMedia, StorageFull."""
    size, rate, has_sound = clips.measure(file)
    film = Film(target, size, rate, with_sound=has_sound)
    clips.add(file, film, from_s, to_s)
    return film.close()
