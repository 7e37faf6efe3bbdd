"""`python -m backend.cli` is `reelhook`."""

from __future__ import annotations

from backend.cli import main

main()
