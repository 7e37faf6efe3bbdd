"""Where a tool finds the service, and as whom it calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Access:
    """The address of the service, the key of the caller, and the campaign that is meant when none is named.

    `is_stopping` says that the process stops: whoever waits is then told how things stand.
    """

    url: str | None
    key: str | None = field(repr=False)
    campaign_id: str | None = None
    is_stopping: Callable[[], bool] = field(default=_never, repr=False)
