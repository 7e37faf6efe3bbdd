"""What can be set on an emulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class EmulatorOptions:
    """Everything has a default that suits a developer; the load and crash tests set more.

    `api_token` and `webhook_secret` are the provider's own unless they are given. `image_s` and `video_s` are the
    seconds a run takes at least; `expiry_s` is how long an output stays. `render` "tiny" serves one prepared file
    of each type, whatever the prompt. `output_bytes` pads every output to that size. A final webhook that is not
    taken is sent again after each of `webhook_delays_s`. `folder` keeps uploads and outputs; without it a
    temporary folder is made and removed.
    """

    api_token: str | None = None
    webhook_secret: str | None = None
    image_s: float = 0.5
    video_s: float = 3.0
    expiry_s: float = 3600.0
    render: Literal["full", "tiny"] = "full"
    output_bytes: int | None = None
    webhook_delays_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 28.0)
    faults: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = None
