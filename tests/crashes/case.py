"""A case: a crash point, how it is provoked, and how often in a full run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crashes.scene import Scene

Story = Callable[["Scene"], None]


class CleanRun(Exception):
    """The n-th write, sync or rename did not come any more: every earlier one has been spoiled."""


@dataclass(frozen=True)
class Case:
    """`rounds` runs at most; each gets its number, so that another moment or another write is hit."""

    point: str
    name: str
    rounds: int
    story: Story


CASES: list[Case] = []
LEFT_OUT: list[str] = []  # the names of those that this machine cannot play


def case(point: str, name: str, *, rounds: int, here: bool = True) -> Callable[[Story], Story]:
    """Register a story under its crash point (a letter) and its name; `here`: this machine can play it."""

    def register(story: Story) -> Story:
        assert name not in {known.name for known in CASES}, name
        if here:
            CASES.append(Case(point, name, rounds, story))
        else:
            LEFT_OUT.append(name)
        return story

    return register
