"""Whether a file reaches the end that its format promises: its outermost structure is walked, nothing is decoded.

Decoders forgive a lost tail. Sizes: ISO/IEC 14496-12 (boxes), RFC 8794 (EBML), the RIFF header.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, BinaryIO

from backend.core.errors import InvalidMedia

BOXES = frozenset(b"ftyp moov mdat free skip wide moof mfra udta meta uuid sidx styp emsg prft".split())
TAIL_BYTES = 64 << 10
RIFF_STREAMED = frozenset({0, 0xFFFFFFFF})  # written by programs that could not go back and fill it in


def check_length(file: BinaryIO, length: int, content_type: str) -> None:
    """Raise `InvalidMedia` when the file ends before its outermost part does; what follows it is ignored."""
    find_end = ENDINGS.get(content_type)
    file.seek(0)
    if find_end is not None and find_end(file, length) > length:
        raise InvalidMedia("The file is cut short.")


def _mp4_end(file: IO[bytes], length: int) -> int:
    start = 0
    while start < length:
        file.seek(start)
        head = file.read(16)
        if head[4:8] not in BOXES:
            break
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # 0: to the end of the file
            break
        start += size
    return start


def _webm_end(file: IO[bytes], length: int) -> int:
    file.seek(4)
    header = _ebml_size(file) or 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":  # Segment
        return 0
    segment = _ebml_size(file)
    return 0 if segment is None else file.tell() + segment


def _ebml_size(file: IO[bytes]) -> int | None:
    """A size of one to eight bytes, the number of leading zero bits saying how many; None when unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    mask = (1 << 7 * (more + 1)) - 1
    size = int.from_bytes(first + file.read(more), "big") & mask
    return None if size == mask else size


def _wav_end(file: IO[bytes], length: int) -> int:
    size = int.from_bytes(file.read(8)[4:], "little")
    return 0 if size in RIFF_STREAMED else size + 8


def check_end(file: BinaryIO, content_type: str) -> None:
    """Raise `InvalidMedia` when the file ends before its format does: Pillow forgives a PNG or GIF that.

    What follows the end is no concern: some services pad their files.
    """
    if content_type == "image/png":
        whole = _has_png_end(file)
    elif content_type == "image/jpeg":
        whole = _has_jpeg_end(file)
    else:
        whole = content_type != "image/gif" or _tail(file).rstrip(b"\0").endswith(b";")
    if not whole:
        raise InvalidMedia("The file is cut short.")


def _has_png_end(file: BinaryIO) -> bool:
    """Whether the chain of chunks reaches IEND (PNG specification, section 5.3)."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IEND":
            return len(file.read(4)) == 4
        file.seek(length + 4, os.SEEK_CUR)
    return False


def _has_jpeg_end(file: BinaryIO) -> bool:
    """Whether an end marker follows the first scan; before that, a thumbnail may have an end marker of its own."""
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        if head[1] == 0xDA:
            return _has_after(file, b"\xff\xd9")
        file.seek(int.from_bytes(head[2:], "big") - 2, os.SEEK_CUR)
    return False


def _has_after(file: BinaryIO, mark: bytes) -> bool:
    """Whether these bytes come later in the file, which is never in memory as a whole."""
    last = b""
    while block := file.read(1 << 20):
        if mark in last + block:
            return True
        last = block[-len(mark) + 1 :]
    return False


def _tail(file: BinaryIO) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
    return file.read()


ENDINGS: dict[str, Callable[[IO[bytes], int], int]] = {
    "video/mp4": _mp4_end,
    "video/webm": _webm_end,
    "audio/wav": _wav_end,
}
