"""What a create request asks for, once the provider's own words are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any


@dataclass(frozen=True)
class Work:
    """What a run makes: one picture or film, from a prompt and from referenced pictures.

    `references` are URLs by the name of their input field: each is fetched, and one that is no picture fails the
    run. `start` names the one that is changed or moved, `end` the one a film ends with. `ratio` is a key of
    render.pictures.SIZES; without it the start picture decides, or it is a square. `seed` is any JSON: another
    seed, prompt or reference gives another picture. `mode` and `duration_s` are for films. `fails_with`: the
    request is taken, and the run fails with this sentence once its references are read.
    """

    content_type: str
    prompt: str = ""
    ratio: str | None = None
    references: dict[str, str] = field(default_factory=dict)
    start: str | None = None
    end: str | None = None
    mode: str = "standard"
    duration_s: int = 5
    count: int = 1
    seed: Any = None
    fails_with: str | None = None

    @property
    def is_film(self) -> bool:
        return self.content_type == "video/mp4"


@dataclass(frozen=True)
class Order:
    """A valid create request. `input` is shown back as it came; `extra` is what only the provider's answers need.

    Without `events` the provider's default ones are announced to `webhook`. After `life` the run is ended.
    """

    model: str
    work: Work
    input: dict[str, Any] = field(default_factory=dict)
    webhook: str | None = None
    events: tuple[str, ...] | None = None
    life: timedelta | None = None
    extra: dict[str, Any] = field(default_factory=dict)
