"""All stories: importing this registers them."""

from __future__ import annotations

from crashes import accept, birth, change, collect, disk, elsewhere, fetch, hear, machine, notify, outage, submit, tell
from crashes.case import CASES, LEFT_OUT

STORIES = (accept, submit, hear, collect, fetch, change, machine, elsewhere, disk, outage, birth, tell, notify)

__all__ = ["CASES", "LEFT_OUT", "STORIES"]
