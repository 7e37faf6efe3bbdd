"""How many parts a file is made of: chunks, segments, blocks or boxes, counted before any decoder walks through them.

Decoders take microseconds for each part, however empty it is, and a file can have millions. Each walk ends at the
first part that makes no sense: what that means is the decoder's to say. Sources: PNG specification 5.3, ISO/IEC 10918-1
B.1, the GIF89a specification, the WebP container, ISO/IEC 14496-12, RFC 8794.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from backend.core.errors import InvalidMedia

SOME = 20_000
USUAL_BYTES = 500  # a part has more on average in files that programs make
SMALL_BYTES = {"image/gif": 100, "video/webm": 100}  # sub-blocks of 255 at most; packets of sound
NESTED = frozenset(b"moov trak mdia minf stbl edts dinf udta mvex moof traf mfra".split())
DEPTH = 12
SEGMENT = b"\x18\x53\x80\x67"

Walk = Callable[[BinaryIO, int], Iterator[None]]


def check_count(file: BinaryIO, length: int, content_type: str) -> None:
    """Raise `InvalidMedia` for a file in more parts than a program would make of so many bytes."""
    walk = WALKS.get(content_type)
    if walk is None:
        return
    most = SOME + length // SMALL_BYTES.get(content_type, USUAL_BYTES)
    for count, _ in enumerate(walk(file, length), 1):
        if count > most:
            raise InvalidMedia(f"The file is made of more than {most:,} parts.")


def _png(file: BinaryIO, length: int) -> Iterator[None]:
    at = 8
    while len(head := _read(file, at, 8)) == 8:
        yield
        if head[4:] == b"IEND":  # some services pad their files
            break
        at += 12 + int.from_bytes(head[:4], "big")


def _jpeg(file: BinaryIO, length: int) -> Iterator[None]:
    """The segments up to each scan; what is between two markers of a scan has no length to follow."""
    at = 2
    while len(head := _read(file, at, 4)) == 4 and head[0] == 0xFF:
        yield
        if head[1] == 0xDA:
            break
        at += 2 + int.from_bytes(head[2:], "big")


def _gif(file: BinaryIO, length: int) -> Iterator[None]:
    head = _read(file, 0, 13)
    at = 13 + _palette(head[10]) if len(head) == 13 else length
    while kind := _read(file, at, 1):
        yield
        if kind == b"!":
            at += 2
        elif kind == b",":
            image = _read(file, at, 10)
            at += 11 + (_palette(image[9]) if len(image) == 10 else 0)
        else:
            break
        while (size := _read(file, at, 1)) and size[0]:
            yield
            at += 1 + size[0]
        at += 1


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _riff(file: BinaryIO, length: int) -> Iterator[None]:
    at = 12
    while len(head := _read(file, at, 8)) == 8:
        yield
        size = int.from_bytes(head[4:], "little")
        at += 8 + size + size % 2


def _mp4(file: BinaryIO, length: int) -> Iterator[None]:
    return _boxes(file, 0, length, 0)


def _boxes(file: BinaryIO, at: int, end: int, depth: int) -> Iterator[None]:
    while at < end and len(head := _read(file, at, 16)) >= 8:
        yield
        size, body = int.from_bytes(head[:4], "big"), at + 8
        if size == 1 and len(head) == 16:
            size, body = int.from_bytes(head[8:], "big"), at + 16
        elif size == 0:
            size = end - at
        if size < body - at:
            return
        if head[4:8] in NESTED and depth < DEPTH:
            yield from _boxes(file, body, min(at + size, end), depth + 1)
        at += size


def _webm(file: BinaryIO, length: int) -> Iterator[None]:
    """The elements of the file and of its segment; what has an unknown size is walked into."""
    at = 0
    while at < length and len(head := _read(file, at, 12)) > 1 and head[0]:
        yield
        id_bytes = 9 - head[0].bit_length()
        size_bytes = 9 - head[id_bytes].bit_length() if id_bytes < len(head) else 9
        if size_bytes > 8:
            return
        unknown = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & unknown
        at += id_bytes + size_bytes
        if head[:4] != SEGMENT and size != unknown:
            at += size


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


WALKS: dict[str, Walk] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/gif": _gif,
    "image/webp": _riff,
    "audio/wav": _riff,
    "video/mp4": _mp4,
    "video/webm": _webm,
}
