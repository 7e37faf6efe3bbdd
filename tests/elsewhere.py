"""A store that has no files of its own, as one far away has none: its objects are in memory.

Whoever needs a path must borrow a copy, so no story over this store passes where somebody looks for a stored file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from backend.core.errors import NotFound, TooLarge
from backend.storage import Spool, check_name, folder_of
from backend.storage.store import CHUNK_BYTES


class Elsewhere:
    """The store and its spool; `public` is where everybody can fetch its objects, if anywhere."""

    def __init__(self, spool: Spool, public: str | None = None) -> None:
        self.spool = spool
        self.public = public
        self.objects: dict[str, bytes] = {}
        self.lent: list[str] = []

    async def put(self, spooled: Path, name: str) -> None:
        await self.put_all([(spooled, name)])

    async def put_all(self, files: Sequence[tuple[Path, str]]) -> None:
        for spooled, name in files:
            content = await asyncio.to_thread(spooled.read_bytes)
            self.objects[check_name(name)] = content
            await asyncio.to_thread(spooled.unlink)

    async def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        content = self._found(name)[start:end]
        for at in range(0, len(content), CHUNK_BYTES):
            await asyncio.sleep(0)
            yield content[at : at + CHUNK_BYTES]

    @asynccontextmanager
    async def local(self, name: str, *, most_bytes: int | None = None) -> AsyncIterator[Path]:
        if most_bytes is not None and len(self._found(name)) > most_bytes:
            raise TooLarge
        async with self.spool.copy(name, self.open(name)) as path:
            self.lent.append(name)
            yield path

    async def size(self, name: str) -> int | None:
        await asyncio.sleep(0)
        found = self.objects.get(check_name(name))
        return None if found is None else len(found)

    async def url(self, name: str) -> str | None:
        check_name(name)
        return f"{self.public}/{name}" if self.public else None

    async def delete(self, name: str) -> None:
        await asyncio.sleep(0)
        self.objects.pop(check_name(name), None)

    async def delete_all(self, names: Sequence[str]) -> None:
        for name in names:
            await self.delete(name)

    async def names(self) -> AsyncIterator[str]:
        for name in list(self.objects):
            await asyncio.sleep(0)
            yield name

    def lay_out(self, folder: Path) -> None:
        """Write every object where a folder would have it, for those who look at files; nobody else did so before."""
        assert not [file for file in folder.rglob("*") if file.is_file()], "somebody wrote beside the store"
        for name, content in self.objects.items():
            (folder / folder_of(name)).mkdir(exist_ok=True)
            (folder / folder_of(name) / name).write_bytes(content)

    def _found(self, name: str) -> bytes:
        if check_name(name) not in self.objects:
            raise NotFound()
        return self.objects[name]
