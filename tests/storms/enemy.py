"""A client that brings the worst files there are while all else goes on; now and then it leaves in the middle."""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from hostile_files import HOSTILE

from storms.customers import AGAIN, Books

PAUSE_S = 0.3
IMPATIENT_S = 0.7


@dataclass
class Enemy:
    """Works in a thread of its own until the customers have what they wanted."""

    http: httpx.Client
    books: Books
    chance: random.Random
    name: str = "enemy"
    files: dict[str, bytes] = field(default_factory=dict)

    def work(self) -> None:
        """One file after the other; an answer is a refusal, or that it is a picture or film after all."""
        self._make_files()
        names = list(self.files)
        while not self.books.is_done():
            name = self.chance.choice(names)
            if self.chance.random() < 0.2:
                self._leave(name)
            else:
                self._send(name)
            time.sleep(self.chance.uniform(0, 2 * PAUSE_S))  # an enemy that the machine can bear

    def _make_files(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "file"
            for name in QUICK:
                HOSTILE[name](path)
                self.files[name] = path.read_bytes()

    def _send(self, name: str) -> None:
        try:
            answer = self.http.post("/api/v2/assets", files={"file": ("x", self.files[name])})
        except httpx.TransportError:
            return  # the service was killed: nothing was promised
        self.books.note("hostile", answer)
        if answer.status_code not in {201, 422, *AGAIN}:
            self.books.accuse(f"{name} was answered {answer.status_code}: {answer.text}")

    def _leave(self, name: str) -> None:
        try:
            self.http.post("/api/v2/assets", files={"file": ("x", self.files[name])}, timeout=IMPATIENT_S)
        except httpx.TransportError:
            return


# Those that are soon made and sent; the first one keeps a process busy as long as it is let.
QUICK = (
    "a JPEG of scans",
    "a film whose stream is larger than its header",
    "a film of frames that repeat",
    "a flat WebP of 49 megapixels",
    "VP8 that grows",
    "an APNG of frames within the budget",
    "a PNG of 49 megapixels with a palette",
)
