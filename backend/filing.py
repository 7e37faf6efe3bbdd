"""What the files of a row are called in the storage: its id, perhaps a word, and what they are."""

from __future__ import annotations

from backend.model import Asset, Generation

FRAMES = ("first", "last")


def poster(id: str) -> str:
    """The small picture of a generation."""
    return f"{id}-poster.jpg"


def frame(id: str, which: str) -> str:
    """One frame of a video, kept when it was used as a reference."""
    return f"{id}-{which}.jpg"


def result(id: str, suffix: str) -> str:
    """What a generation was made for."""
    return id + suffix


def of_generation(row: Generation) -> list[str]:
    """Every file that can be stored under this row."""
    frames = [frame(row.id, which) for which in FRAMES] if row.kind == "video" else []
    return [name for name in (row.file_name, row.poster_name, *frames) if name]


def of_asset(row: Asset) -> list[str]:
    """Every file that can be stored under this asset."""
    return [row.file_name] + ([frame(row.id, which) for which in FRAMES] if row.kind == "video" else [])
