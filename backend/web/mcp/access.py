"""Where a tool finds the service, and as whom it calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Access:
    """The service's address, the caller's key and the campaign that is meant when none is named.

    `is_stopping` says that whoever waits should be told how things stand, and not wait on.
    """

    url: str | None
    key: str | None = field(repr=False)
    campaign_id: str | None = None
    is_stopping: Callable[[], bool] = field(default=_never, repr=False)
