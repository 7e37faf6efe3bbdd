"""Images, videos and sound as files: what they are, whether they are whole, and stills of them.

Hostile files are the normal case. `kinds` tells what a file claims to be by its first bytes. Everything else is done in
the cage: `cage` is the service's side of it, the package `inside` is what runs there and decodes. `naming` says what a
file is called that nobody here decodes, `data_uris` reads files that are written as text.
"""

from __future__ import annotations

from backend.media.kinds import (
    FRAME_TYPE,
    HEAD_BYTES,
    MAX_PIXELS,
    MOST_FILMS,
    POSTER_TYPE,
    Probe,
    extension,
    extensions,
    sniff,
)
from backend.media.places import OUTPUT, WORK, WORKS, Place, upload
from backend.media.threads import in_thread

__all__ = [
    "FRAME_TYPE",
    "HEAD_BYTES",
    "MAX_PIXELS",
    "MOST_FILMS",
    "OUTPUT",
    "POSTER_TYPE",
    "WORK",
    "WORKS",
    "Place",
    "Probe",
    "extension",
    "extensions",
    "in_thread",
    "sniff",
    "upload",
]
