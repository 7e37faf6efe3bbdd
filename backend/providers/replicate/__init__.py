"""Replicate (https://replicate.com): what it is asked, and what its answers mean."""

from __future__ import annotations

from backend.providers.replicate.settings import build

__all__ = ["build"]
