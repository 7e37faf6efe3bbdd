"""Files made larger without being made invalid, as sparse files: 500 MB cost no memory and hardly a disk."""

from __future__ import annotations

import struct
from pathlib import Path
from zlib import crc32

_CHUNK = 1 << 20
# Unknown to every decoder and safe to skip; not a private chunk, because Pillow keeps those in memory.
_CHUNK_TYPE = b"pADd"


def pad(path: Path, content_type: str, wanted: int) -> None:
    """Brings the file to `wanted` bytes; one that is larger already, or nearly, stays as it is."""
    missing = wanted - path.stat().st_size
    if missing < 16:
        return
    if content_type == "image/png":
        _pad_png(path, missing)
    elif content_type == "video/mp4":
        _pad_mp4(path, missing)
    else:
        with path.open("r+b") as file:  # decoders of JPEG stop at its end marker
            file.truncate(wanted)


def _pad_mp4(path: Path, missing: int) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.write(struct.pack(">I4sQ", 1, b"free", missing))  # 1: the length follows in 64 bits
        file.truncate(size + missing)


def _pad_png(path: Path, missing: int) -> None:
    """Chunks of up to 1 MiB between the picture and its 12 bytes of IEND."""
    full = _CHUNK_TYPE + bytes(_CHUNK)
    full_crc = crc32(full)
    with path.open("r+b") as file:
        file.seek(-12, 2)
        end = file.read(12)
        file.seek(-12, 2)
        file.truncate()  # what is skipped below must be zeros
        while missing >= 12:
            length = min(_CHUNK, missing - 12)
            if 0 < missing - 12 - length < 12:
                length -= 12  # what is left must hold a chunk of its own
            file.write(struct.pack(">I4s", length, _CHUNK_TYPE))
            file.seek(length, 1)
            crc = full_crc if length == _CHUNK else crc32(full[: length + 4])
            file.write(struct.pack(">I", crc))
            missing -= length + 12
        file.write(end)
