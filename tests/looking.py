"""What the cage's child does with a file, done in the test's own process: many files without many processes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from backend.media import Probe
from backend.media.inside import inspection


def probe(path: Path, *, full: bool) -> Probe:
    with path.open("rb") as file:
        return inspection.probe(file, full=full)


def inspect(path: Path, target: Path) -> Probe:
    return _draw(path, target, work=inspection.inspect)


def poster(path: Path, target: Path) -> Probe:
    return _draw(path, target, work=inspection.poster)


def frame(path: Path, target: Path, *, which: Literal["first", "last"]) -> Probe:
    return _draw(path, target, work=lambda file, out: inspection.frame(file, out, which=which))


def _draw(path: Path, target: Path, *, work) -> Probe:
    """As the cage does it: where nothing was written there is no file."""
    wrote = False
    try:
        with path.open("rb") as file, target.open("wb", buffering=0) as out:
            found = work(file, out)
            wrote = out.tell() > 0
        return found
    finally:
        if not wrote:
            target.unlink()
