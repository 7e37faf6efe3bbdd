"""Downloads: a file is written under another name, continued after a lost connection, checked, and then renamed."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from reelhook import _calls
from reelhook.errors import BadAnswer, DownloadFailed
from reelhook.models import File, Generation

EXTENSIONS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/tiff": ".tiff",
    "image/svg+xml": ".svg",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
    "video/x-matroska": ".mkv",
    "video/mp2t": ".ts",
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
    "audio/wav": ".wav",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "audio/aac": ".aac",
    "application/octet-stream": ".bin",
}
REDIRECTS = (301, 302, 303, 307, 308)
MOST_HOPS = 3


class Part:
    """The bytes that have come so far, in a file beside the target. Its calls block, as every file does."""

    def __init__(self, generation: Generation, to: str | Path | None, file: int | None = None) -> None:
        if generation.status != "completed" or generation.sha256 is None:
            raise DownloadFailed(
                f"{generation.kind} {generation.id} is {generation.status}: there is no file to download"
            )
        self._generation = generation
        self._wanted = _wanted(generation, file)
        self._target = _target(generation, self._wanted, Path(to) if to is not None else Path())
        # A name of its own: two downloads to one place at the same time would write into one file.
        self._path = self._target.with_name(f"{self._target.name}.{secrets.token_hex(4)}.part")
        self._file = self._path.open("xb")
        self._tag: str | None = None
        self._begin()

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return self._size

    @property
    def is_whole(self) -> bool:
        """Whether no byte is missing."""
        return self._size == self._wanted.bytes

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest. Without an ETag the rest could be of another file: then for all."""
        return {"Range": f"bytes={self._size}-", "If-Range": self._tag} if self._size and self._tag else {}

    def open(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin with an answer, which has the rest or everything again. Raises BadAnswer for another part."""
        if status == 200:
            self._begin()
        elif status != 206 or not re.match(rf"bytes {self._size}-", headers.get("content-range", "")):
            raise BadAnswer(f"the file of {self._generation.id} was answered {status} with another part")
        tag = headers.get("etag")
        # A weak tag may stand for other bytes: a rest that is asked for by it could be of another file.
        self._tag = tag if tag and not tag.startswith("W/") else None

    def write(self, chunk: bytes) -> None:
        """Write some more bytes. Raises DownloadFailed for more than there should be."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self._size += len(chunk)
        if self._wanted.bytes is not None and self._size > self._wanted.bytes:
            raise DownloadFailed(f"the file of {self._generation.id} has more bytes than were stored")

    def finish(self) -> Path:
        """Put the file in its place if it is what was stored, and return its path. Raises DownloadFailed."""
        found = self._digest.hexdigest()
        if found != self._wanted.sha256:
            raise DownloadFailed(f"the file of {self._generation.id} did not arrive as it was stored: try again")
        self._file.close()
        self._path.replace(self._target)
        return self._target

    def close(self) -> None:
        """Remove a file that is not finished."""
        try:
            self._file.close()
        finally:  # on a full disk the last bytes cannot be written, and that is no reason to keep the others
            self._path.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self._size = 0


def _wanted(generation: Generation, file: int | None) -> Generation | File:
    """Return what the service says of the file. Raises DownloadFailed when it is not stored."""
    if file is None:
        return generation
    found = next((each for each in generation.files if each.index == file), None)
    if found is None or found.sha256 is None:
        why = found.media.why if found else "there is none of that index"
        raise DownloadFailed(f"file {file} of {generation.id} is not stored: {why}")
    return found


def _target(generation: Generation, wanted: Generation | File, to: Path) -> Path:
    if not to.is_dir():
        return to
    place = f"-{wanted.index}" if isinstance(wanted, File) and wanted.index else ""
    return to / (_calls.segment(generation.id) + place + EXTENSIONS.get(wanted.content_type or "", ""))
