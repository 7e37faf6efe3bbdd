"""The folder: what is stored is whole and stays, and no name leads elsewhere. For every store: test_storage.py."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.core.errors import NotFound, SettingsError, StorageFull
from backend.storage import Spool, Store, open_storage

ID = "01936b2e-7c1f-7d4e-9a50-3f1b2c4d5e6f"
NAME = f"{ID}.png"


@pytest.fixture
def storage(tmp_path: Path) -> tuple[Spool, Store]:
    return open_storage(f"file://{tmp_path}/media")


@pytest.fixture
def spool(storage: tuple[Spool, Store]) -> Spool:
    return storage[0]


@pytest.fixture
def store(storage: tuple[Spool, Store]) -> Store:
    return storage[1]


async def put(spool: Spool, store: Store, name: str, content: bytes) -> None:
    spooled = spool.new(name)
    spooled.write_bytes(content)
    await store.put(spooled, name)


async def get(store: Store, name: str) -> bytes:
    return b"".join([chunk async for chunk in store.open(name)])


async def lends(store: Store, name: str) -> bool:
    try:
        async with store.local(name):
            return True
    except NotFound:
        return False


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_kept_file_lies_under_its_name_by_the_end_of_its_id(spool: Spool, store: Store, tmp_path: Path) -> None:
    await put(spool, store, NAME, b"png")
    await put(spool, store, f"{ID}-poster.jpg", b"webp")
    assert files(tmp_path / "media") == [f"6f/{ID}-poster.jpg", f"6f/{NAME}"]
    assert await get(store, NAME) == b"png" and await store.size(NAME) == 3
    async with store.local(NAME) as path:
        assert path == tmp_path / "media" / "6f" / NAME, "its own, no copy"


async def test_a_symbolic_link_is_never_followed_out(spool: Spool, store: Store, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / NAME).write_bytes(b"secret")
    (tmp_path / "media" / "6f").symlink_to(tmp_path / "outside")
    with pytest.raises((NotFound, OSError)):
        await get(store, NAME)
    assert not await lends(store, NAME) and await store.size(NAME) is None
    await store.delete(NAME)
    with pytest.raises(OSError):
        await put(spool, store, NAME, b"x")
    assert (tmp_path / "outside" / NAME).read_bytes() == b"secret"

    (tmp_path / "media" / "6f").unlink()
    (tmp_path / "media" / "6f").mkdir()
    (tmp_path / "media" / "6f" / NAME).symlink_to(tmp_path / "outside" / NAME)
    with pytest.raises(NotFound):
        await get(store, NAME)
    assert not await lends(store, NAME) and await store.size(NAME) is None
    assert [name async for name in store.names()] == []


@pytest.mark.parametrize("call", ["fdatasync", "replace", "fsync", "mkdir"])
async def test_a_full_disk_is_said_so_and_nothing_half_is_kept(
    spool: Spool, store: Store, tmp_path: Path, monkeypatch, call: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spooled = spool.new(NAME)
    spooled.write_bytes(b"whole")
    if call == "fdatasync":
        monkeypatch.setattr("backend.storage.folder._sync_file", full)
    else:
        monkeypatch.setattr(Path if call == "mkdir" else os, call, full)
    with pytest.raises(StorageFull):
        await store.put(spooled, NAME)
    assert call == "fsync" or await store.size(NAME) is None
    monkeypatch.undo()
    if spooled.exists():
        await store.put(spooled, NAME)
    assert await get(store, NAME) == b"whole"


async def test_a_really_full_disk_is_said_so(spool: Spool, tmp_path: Path) -> None:
    tmp = tmp_path / "media" / "tmp"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp], capture_output=True)
    if made.returncode:
        pytest.skip("only root can mount a small disk")

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)

    try:
        with pytest.raises(StorageFull):
            async with spool.copy(NAME, chunks()):
                pass
        assert os.listdir(tmp) == []
    finally:
        subprocess.run(["umount", tmp], check=True)


async def test_the_bytes_are_on_disk_before_the_name_is_and_the_folder_last(
    spool: Spool, store: Store, monkeypatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("backend.storage.folder._sync_file", lambda fd: calls.append("file"))
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *a, **k: (calls.append("name"), replace(*a, **k))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("folder"), fsync(fd))[1])
    pairs = [(spool.new(name), name) for name in (NAME, f"{ID}-poster.jpg")]
    for path, _ in pairs:
        path.write_bytes(b"x")
    await store.put_all(pairs)
    assert calls == ["file", "file", "folder", "name", "name", "folder"]  # the first folder is the new one's parent


async def test_free_bytes_and_trouble(spool: Spool, tmp_path: Path) -> None:
    assert (await spool.free_bytes() or 0) > 0
    assert await spool.trouble() is None
    (tmp_path / "media" / "tmp").rmdir()
    assert "nothing can be written" in (await spool.trouble() or "")


@pytest.mark.parametrize("url", ["s3://bucket/a", "data/media", "", "file:", "file:///", "file://host/a", "http://a/b"])
def test_a_storage_nobody_knows_is_a_setting_to_change(url: str) -> None:
    with pytest.raises(SettingsError, match="STORAGE_URL"):
        open_storage(url)


def test_a_relative_folder_lies_below_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    spool, _ = open_storage("file:data/my%20media")
    monkeypatch.chdir("/")
    assert spool.new(NAME).parent == tmp_path / "data" / "my media" / "tmp"


WRITER = """
import asyncio, itertools, sys
from backend.storage import open_storage, write

async def main():
    spool, store = open_storage("file://" + sys.argv[1])
    async def chunks(n):
        for _ in range(40):
            yield bytes([n]) * 50_000
    for n in itertools.count():
        spooled = spool.new()
        await write(spooled, chunks(n % 256))
        await store.put(spooled, f"01936b2e-7c1f-7d4e-9a50-{n:012x}.bin")
        print(n, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 4, 9])
async def test_a_killed_writer_leaves_no_half_file_under_a_name(tmp_path: Path, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    for _ in range(after):
        writer.stdout.readline()
    await asyncio.sleep(0.003 * after)  # somewhere in the middle of the next one
    writer.send_signal(signal.SIGKILL)
    acknowledged = after + len(writer.communicate()[0].split())
    spool, store = open_storage(f"file://{tmp_path}")
    kept = sorted([name async for name in store.names()])
    assert len(kept) >= acknowledged
    for n, name in enumerate(kept):
        assert await get(store, name) == bytes([n % 256]) * 2_000_000
    await spool.sweep(0)
    assert len(files(tmp_path)) == len(kept)


async def test_a_link_in_the_place_of_a_sub_folder_deletes_nothing_elsewhere(
    spool: Spool, store: Store, tmp_path: Path
) -> None:
    await put(spool, store, NAME, b"x")
    (tmp_path / "media" / "ff").symlink_to(tmp_path / "media" / "6f")
    await store.delete_all([f"{ID[:-2]}ff.png"])
    assert await store.size(NAME) == 1
