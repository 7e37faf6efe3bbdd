"""How local work is made: it needs no settings."""

from __future__ import annotations

from backend.providers.base import Means, Provider
from backend.providers.local.api import Local


def build(means: Means) -> Provider:
    """The one account there is."""
    return Local(means)
