"""What a measurement says: a figure, what it should reach, and the machine's floor from the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line. `ratio` compares with the floor, which says how busy and how fast the machine was."""

    name: str
    value: float
    unit: str
    wanted: str
    floor: str = ""
    ratio: float | None = None


def show(figures: list[Figure]) -> None:
    """Print them as a table."""
    rows = [("figure", "measured", "wanted", "floor in the same run", "ratio")]
    for one in figures:
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        rows.append((one.name, f"{one.value:,.1f} {one.unit}", one.wanted, one.floor, ratio))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
