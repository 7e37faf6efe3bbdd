"""Files that clients upload, kept in a folder for a day."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import file_digest, md5
from pathlib import Path
from typing import IO, Any

from backend.emulator.kit.runs import new_id

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True)
class Upload:
    """One file; its bytes are at `path`."""

    id: str
    name: str
    content_type: str
    size: int
    sha256: str
    md5: str
    metadata: dict[str, Any]
    created_at: datetime
    path: Path

    @property
    def expires_at(self) -> datetime:
        return self.created_at + KEPT_FOR


@dataclass
class Uploads:
    """The uploads in a folder, newest last."""

    folder: Path
    by_id: dict[str, Upload] = field(default_factory=dict)

    async def keep(self, content: IO[bytes], name: str, content_type: str, metadata: dict[str, Any]) -> Upload:
        upload = await asyncio.to_thread(_copy, content, self.folder / new_id(), name, content_type, metadata)
        self.by_id[upload.id] = upload
        return upload

    def find(self, id: str) -> Upload | None:
        upload = self.by_id.get(id)
        return upload if upload and upload.expires_at > datetime.now(UTC) else None

    async def delete(self, upload: Upload) -> None:
        self.by_id.pop(upload.id, None)
        await asyncio.to_thread(upload.path.unlink, missing_ok=True)


def _copy(content: IO[bytes], path: Path, name: str, content_type: str, metadata: dict[str, Any]) -> Upload:
    with path.open("wb") as target:
        shutil.copyfileobj(content, target, 1 << 20)
    with path.open("rb") as source:
        sha256 = file_digest(source, "sha256").hexdigest()
        source.seek(0)
        etag = file_digest(source, lambda: md5(usedforsecurity=False)).hexdigest()
    size = path.stat().st_size
    return Upload(path.name, name, content_type, size, sha256, etag, metadata, datetime.now(UTC), path)
