"""Images, videos and sound as files: what they are, whether they are whole, and stills of them.

Hostile files are the normal case: the kind is told by the first bytes, only decoders for that kind are tried, and
pixels are counted before they are decoded. All functions block: call them through `in_thread`.

`kinds` tells what a file claims to be, `endings` whether it is all there, `images` and `videos` decode, `stills`
writes posters and frames, `inspection` is the way in. `naming` says what a file is called that nobody here decodes,
`data_uris` reads files that are written as text.
"""

from __future__ import annotations

from backend.media.inspection import frame, in_thread, inspect, poster, probe
from backend.media.kinds import HEAD_BYTES, MAX_PIXELS, Probe, extension, extensions, sniff
from backend.media.stills import FRAME_TYPE, POSTER_TYPE

__all__ = [
    "FRAME_TYPE",
    "HEAD_BYTES",
    "MAX_PIXELS",
    "POSTER_TYPE",
    "Probe",
    "extension",
    "extensions",
    "frame",
    "in_thread",
    "inspect",
    "poster",
    "probe",
    "sniff",
]
