"""What can be set on the emulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

API_TOKEN = "r8_emulator"  # nosec B105 - it opens nothing but an emulator
WEBHOOK_SECRET = "whsec_cmVlbGhvb2stZW11bGF0b3Itc2VjcmV0"  # nosec B105


@dataclass(frozen=True)
class EmulatorOptions:
    """Everything has a default that suits a developer; the load and crash tests set more.

    `image_s` and `video_s` are the seconds a prediction runs at least; `expiry_s` is how long an output
    stays. `render` "tiny" serves one prepared file of each type, whatever the prompt. `output_bytes` pads
    every output to that size. A final webhook that is not taken is sent again after each `webhook_delays_s`.
    `folder` keeps uploads and outputs; without it a temporary folder is made and removed.
    """

    api_token: str = API_TOKEN
    webhook_secret: str = WEBHOOK_SECRET
    image_s: float = 0.5
    video_s: float = 3.0
    expiry_s: float = 3600.0
    render: Literal["full", "tiny"] = "full"
    output_bytes: int | None = None
    webhook_delays_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 28.0)
    faults: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = None
