"""The files of a row and their names: the id of the row, perhaps a word or a number, and a suffix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from backend.core.generation import COMPLETED, Generation
from backend.core.people import Asset

FRAMES = ("first", "last")
INLINE = "stored:"  # before the name of a file, where a row names the outputs of its prediction
MOST_FILES = 64  # of one prediction
_INLINE_MARK = "-inline-"
_OF_A_FILE = ("file_name", "content_type", "bytes", "sha256", "width", "height", "duration_s")


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a prediction: `index` is its place in the provider's answer.

    `unread` is kept, but nobody could look inside: it is paid, so it is not thrown away. `missing` is not kept and has
    nothing but `why`.
    """

    index: int
    file_name: str | None = None
    content_type: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    state: Literal["read", "unread", "missing"] = "read"
    why: str | None = None


def poster(id: str) -> str:
    """Return the name of the small picture of a generation."""
    return f"{id}-poster.jpg"


def frame(id: str, which: str) -> str:
    """Return the name of one frame of a video, which is kept once it was used as a reference."""
    return f"{id}-{which}.jpg"


def result(id: str, suffix: str, index: int = 0) -> str:
    """Return the name of an output of a generation: the first one, or a further one."""
    return f"{id}-{index}{suffix}" if index else id + suffix


def inline(id: str, token: str) -> str:
    """A file that came inside an answer, until it is stored as a result; `token` makes it another's at each answer."""
    return f"{id}{_INLINE_MARK}{token}.bin"


def inline_names(outputs: Iterable[str]) -> list[str]:
    """The files among these outputs that came inside an answer.

    `stored:/x` is what a provider may write itself: it is a URL that nobody can fetch, and names no file of ours.
    """
    names = [one.removeprefix(INLINE) for one in outputs if one.startswith(INLINE)]
    return [name for name in names if is_inline(name) and "/" not in name]


def is_inline(file_name: str) -> bool:
    """Whether it is such a file: no completed row needs it any more."""
    return _INLINE_MARK in file_name


def columns(outputs: list[Output]) -> dict[str, Any]:
    """Return the columns of a row for these outputs. The first one that is stored is the row's own file."""
    own = next(one for one in outputs if one.file_name)
    said = {name: getattr(own, name) for name in _OF_A_FILE}
    others = [brief(one) for one in outputs if one is not own]
    return {**said, "media_state": own.state, "media_why": own.why, "more_files": others or None}


def outputs(row: Generation) -> list[Output]:
    """Return every output in the provider's order, with the row's own file among them; none until it is completed."""
    if row.status != COMPLETED:
        return []
    others = [Output(**one) for one in row.more_files or []]
    free = {*range(len(others) + 1)} - {one.index for one in others}
    said = {name: getattr(row, name) for name in _OF_A_FILE}
    own = Output(min(free), **said, state=row.media_state or "read", why=row.media_why)
    return sorted([own, *others], key=lambda one: one.index)


def output(row: Generation, index: int | None = None) -> Output | None:
    """Return the stored file of this place, or without `index` the row's own; None when there is none."""
    stored = (one for one in outputs(row) if one.file_name and index in (None, one.index))
    return next(stored, None)


def stored_bytes(row: Generation) -> int:
    """Return how many bytes its outputs have together."""
    return sum(one.bytes or 0 for one in outputs(row))


def media_ms(row: Generation) -> int:
    """Return how long its films are together, in milliseconds. The small number breaks ties as both databases do."""
    return round(sum(one.duration_s or 0.0 for one in outputs(row)) * 1000 + 0.001)


def of_generation(row: Generation) -> list[str]:
    """Return the name of every file that can be stored for this row. A try that broke off may have left a poster."""
    frames = [frame(row.id, which) for which in FRAMES] if row.kind == "video" else []
    others = [one["file_name"] for one in row.more_files or [] if "file_name" in one]
    return [name for name in (row.file_name, poster(row.id), *others, *frames) if name]


def of_asset(row: Asset) -> list[str]:
    """Return the name of every file that can be stored for this asset."""
    return [row.file_name] + ([frame(row.id, which) for which in FRAMES] if row.kind == "video" else [])


def brief(one: Output) -> dict[str, Any]:
    """Return an output as it is written into a row."""
    return {name: value for name, value in asdict(one).items() if value is not None}
