"""Work that this service does itself: films are cut and joined, pictures are taken from them."""

from __future__ import annotations

from backend.providers.local.settings import build

__all__ = ["build"]
