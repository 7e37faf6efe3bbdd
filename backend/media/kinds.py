"""The kind of a file by its first bytes, never by its name or by what somebody declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.core.errors import InvalidMedia

Kind = Literal["image", "video", "audio"]

POSTER_TYPE = "image/jpeg"
FRAME_TYPE = "image/jpeg"
HEAD_BYTES = 64
MOST_FILMS = 32  # that are joined to one: each is an open file
MAX_PIXELS = 50_000_000  # 200 MB decoded; an 8k frame has 33 million

SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "audio/mp4": ".m4a",
    "audio/webm": ".weba",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
}
STILL_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"msf1", b"avif", b"avis"})


@dataclass(frozen=True)
class Probe:
    """What a file is: pixels as displayed, seconds, and frames where they were counted."""

    kind: Kind
    content_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    frames: int | None = None


def sniff(head: bytes) -> str | None:
    """Return the content type by the first HEAD_BYTES, or None for anything that is not taken here."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return None if head[8:12] in STILL_BRANDS else "video/mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "video/webm" if b"webm" in head[:HEAD_BYTES] else None
    return "audio/mpeg" if _is_mp3(head) else None


def extensions(kind: Kind) -> list[str]:
    """Return every suffix that a file of this kind can have."""
    return [suffix for content_type, suffix in SUFFIXES.items() if content_type.startswith(f"{kind}/")]


def extension(content_type: str) -> str:
    """Return the suffix of a stored file, with its dot. Raises `InvalidMedia` for a type that is not taken here."""
    try:
        return SUFFIXES[content_type]
    except KeyError:
        raise InvalidMedia() from None


def _is_mp3(head: bytes) -> bool:
    if head[:3] == b"ID3":
        return True
    return len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2  # frame sync, layer III
