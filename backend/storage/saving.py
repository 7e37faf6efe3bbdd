"""A stream becomes a stored file: spooled, counted, hashed, kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable
from pathlib import Path
from typing import IO

from backend.disk import room
from backend.storage.base import Storage, StoredFile

BATCH_BYTES = 1 << 20


async def save(storage: Storage, name: str, chunks: AsyncIterable[bytes], content_type: str) -> StoredFile:
    """Keep everything `chunks` yields; on any failure nothing stays. Raises `StorageFull`."""
    spooled = storage.spool(name)
    try:
        length, sha256 = await spool(spooled, chunks)
        await storage.keep(spooled, name)
    finally:
        await asyncio.to_thread(spooled.unlink, missing_ok=True)
    return StoredFile(name, length, sha256, content_type)


async def spool(path: Path, chunks: AsyncIterable[bytes]) -> tuple[int, str]:
    """Write everything `chunks` yields to a path; how many bytes, and their SHA-256. Raises `StorageFull`."""
    digest, length = hashlib.sha256(), 0
    file = await asyncio.to_thread(path.open, "wb")
    try:
        batch = bytearray()
        async for chunk in chunks:
            batch += chunk
            length += len(chunk)
            if len(batch) >= BATCH_BYTES:
                await asyncio.to_thread(_write, file, batch, digest)
                batch = bytearray()
        await asyncio.to_thread(_write, file, batch, digest)
    finally:
        await asyncio.to_thread(file.close)
    return length, digest.hexdigest()


def _write(file: IO[bytes], batch: bytearray, digest: hashlib._Hash) -> None:
    with room.needed():
        file.write(batch)
        file.flush()
    digest.update(batch)
