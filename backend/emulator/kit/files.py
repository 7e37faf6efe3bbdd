"""Uploaded files: `/v1/files`, kept in a folder for a day."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import file_digest, md5
from pathlib import Path
from typing import IO, Any

from backend.emulator.kit.predictions import new_id, stamp

MAX_BYTES = 100 << 20
KEPT_FOR = timedelta(hours=24)  # the documentation says one hour, answers of the real service one day


@dataclass(frozen=True)
class File:
    """One upload; its bytes are at `path`."""

    id: str
    name: str
    content_type: str
    size: int
    sha256: str
    md5: str
    metadata: dict[str, Any]
    created_at: datetime
    path: Path

    def as_json(self, origin: str) -> dict[str, Any]:
        """`name` and `etag` are not specified; the real service sends them and its SDK needs them."""
        return {
            "id": self.id,
            "name": self.name,
            "content_type": self.content_type,
            "size": self.size,
            "etag": self.md5,
            "checksums": {"sha256": self.sha256, "md5": self.md5},
            "metadata": self.metadata,
            "created_at": stamp(self.created_at),
            "expires_at": stamp(self.created_at + KEPT_FOR),
            "urls": {"get": f"{origin}/v1/files/{self.id}"},
        }


@dataclass
class Files:
    """The files in a folder, newest last."""

    folder: Path
    by_id: dict[str, File] = field(default_factory=dict)

    async def keep(self, upload: IO[bytes], name: str, content_type: str, metadata: dict[str, Any]) -> File:
        file = await asyncio.to_thread(_copy, upload, self.folder / new_id(), name, content_type, metadata)
        self.by_id[file.id] = file
        return file

    def find(self, id: str) -> File | None:
        file = self.by_id.get(id)
        return file if file and file.created_at + KEPT_FOR > datetime.now(UTC) else None

    async def delete(self, file: File) -> None:
        self.by_id.pop(file.id, None)
        await asyncio.to_thread(file.path.unlink, missing_ok=True)


def _copy(upload: IO[bytes], path: Path, name: str, content_type: str, metadata: dict[str, Any]) -> File:
    with path.open("wb") as target:
        shutil.copyfileobj(upload, target, 1 << 20)
    with path.open("rb") as source:
        sha256 = file_digest(source, "sha256").hexdigest()
        source.seek(0)
        etag = file_digest(source, lambda: md5(usedforsecurity=False)).hexdigest()
    size = path.stat().st_size
    return File(path.name, name, content_type, size, sha256, etag, metadata, datetime.now(UTC), path)
