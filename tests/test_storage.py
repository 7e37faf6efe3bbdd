"""The folder: what is kept is whole and stays, and no name leads elsewhere."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.core.errors import NotFound, SettingsError, StorageFull
from backend.storage import Storage, StoredFile, open_storage, save

ID = "01936b2e-7c1f-7d4e-9a50-3f1b2c4d5e6f"
NAME = f"{ID}.png"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}/media")


async def put(storage: Storage, name: str, content: bytes) -> None:
    spooled = storage.spool(name)
    spooled.write_bytes(content)
    await storage.keep(spooled, name)


async def get(storage: Storage, name: str, *range_: int) -> bytes:
    return b"".join([chunk async for chunk in storage.open(name, *range_)])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_kept_file_lies_under_its_name_by_the_end_of_its_id(storage: Storage, tmp_path: Path) -> None:
    await put(storage, NAME, b"png")
    await put(storage, f"{ID}-poster.jpg", b"webp")
    assert files(tmp_path / "media") == [f"6f/{ID}-poster.jpg", f"6f/{NAME}"]
    assert await get(storage, NAME) == b"png" and await storage.size(NAME) == 3
    assert storage.path(NAME) == tmp_path / "media" / "6f" / NAME


async def test_any_part_of_a_file_can_be_read_in_chunks(storage: Storage) -> None:
    content = os.urandom(700_000)
    await put(storage, NAME, content)
    for start, end in ((0, None), (0, 10), (262_144, None), (5, 600_000), (699_999, None), (0, 9_999_999), (9, 9)):
        assert await get(storage, NAME, *([start] if end is None else [start, end])) == content[start:end]
    assert all([len(chunk) <= 256 << 10 async for chunk in storage.open(NAME)])


async def test_a_reader_who_leaves_early_leaves_no_open_file(storage: Storage) -> None:
    await put(storage, NAME, bytes(1 << 20))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        chunks = storage.open(NAME)
        await anext(chunks)
        await chunks.aclose()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_what_is_not_there_is_not_found_and_may_be_deleted(storage: Storage) -> None:
    assert await storage.size(NAME) is None
    await storage.delete(NAME)
    with pytest.raises(NotFound):
        await get(storage, NAME)
    await put(storage, NAME, b"x")
    await storage.delete(NAME)
    assert await storage.size(NAME) is None


NO_NAMES = ["", ".", "..", "../a.png", "a/../../b.png", "/etc/passwd", "ab", "a.png", "AB.png", "ab.png/", "ab.p.g"]
NO_NAMES += ["-ab.png", "ab\0.png", "ab.png\n", "ab\\c.png", "äb.png", "ab..png", "a" * 200 + ".png", "tmp/../ab.png"]


@pytest.mark.parametrize("name", NO_NAMES)
async def test_a_name_that_is_none_is_refused_everywhere(storage: Storage, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(NotFound):
        await storage.keep(tmp_path / "file", name)
    with pytest.raises(NotFound):
        await get(storage, name)
    with pytest.raises(NotFound):
        storage.path(name)
    with pytest.raises(NotFound):
        await storage.size(name)
    with pytest.raises(NotFound):
        await storage.delete(name)
    if name != "ab":  # spooled before its suffix is known
        with pytest.raises(NotFound):
            storage.spool(name)


async def test_a_symbolic_link_is_never_followed_out(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / NAME).write_bytes(b"secret")
    (tmp_path / "media" / "6f").symlink_to(tmp_path / "outside")
    with pytest.raises((NotFound, OSError)):
        await get(storage, NAME)
    assert storage.path(NAME) is None and await storage.size(NAME) is None
    await storage.delete(NAME)
    with pytest.raises(OSError):
        await put(storage, NAME, b"x")
    assert (tmp_path / "outside" / NAME).read_bytes() == b"secret"

    (tmp_path / "media" / "6f").unlink()
    (tmp_path / "media" / "6f").mkdir()
    (tmp_path / "media" / "6f" / NAME).symlink_to(tmp_path / "outside" / NAME)
    with pytest.raises(NotFound):
        await get(storage, NAME)
    assert storage.path(NAME) is None and await storage.size(NAME) is None
    assert [name async for name in storage.names()] == []


async def test_names_lists_what_is_kept_and_nothing_temporary(storage: Storage) -> None:
    names = {f"{ID[:-2]}{n:02x}.png" for n in range(40)}
    for name in names:
        await put(storage, name, b"x")
    storage.spool(NAME).write_bytes(b"x")
    assert {name async for name in storage.names()} == names


async def test_only_old_temporary_files_are_swept(storage: Storage, tmp_path: Path) -> None:
    await put(storage, NAME, b"x")
    old, new = storage.spool(NAME), storage.spool(ID)
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (1, 1))
    assert await storage.sweep(3600) == 1
    assert not old.exists() and new.exists() and await storage.size(NAME) == 1


async def test_a_stream_is_saved_with_its_length_and_hash(storage: Storage) -> None:
    content = os.urandom(3 << 20)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 70_000):
            yield content[start : start + 70_000]

    expected = StoredFile(NAME, len(content), hashlib.sha256(content).hexdigest(), "image/png")
    assert await save(storage, NAME, chunks(), "image/png") == expected
    assert await get(storage, NAME) == content


async def test_a_stream_that_breaks_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await save(storage, NAME, chunks(), "image/png")
    assert files(tmp_path / "media") == []


@pytest.mark.parametrize("call", ["fdatasync", "replace", "fsync", "mkdir"])
async def test_a_full_disk_is_said_so_and_nothing_half_is_kept(
    storage: Storage, tmp_path: Path, monkeypatch, call: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spooled = storage.spool(NAME)
    spooled.write_bytes(b"whole")
    if call == "fdatasync":
        monkeypatch.setattr("backend.storage.folder._sync_file", full)
    else:
        monkeypatch.setattr(Path if call == "mkdir" else os, call, full)
    with pytest.raises(StorageFull):
        await storage.keep(spooled, NAME)
    assert call == "fsync" or await storage.size(NAME) is None
    monkeypatch.undo()
    if spooled.exists():
        await storage.keep(spooled, NAME)
    assert await get(storage, NAME) == b"whole"


async def test_a_really_full_disk_is_said_so(storage: Storage, tmp_path: Path) -> None:
    tmp = tmp_path / "media" / "tmp"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp], capture_output=True)
    if made.returncode:
        pytest.skip("only root can mount a small disk")

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)

    try:
        with pytest.raises(StorageFull):
            await save(storage, NAME, chunks(), "image/png")
        assert os.listdir(tmp) == []
    finally:
        subprocess.run(["umount", tmp], check=True)


async def test_the_bytes_are_on_disk_before_the_name_is_and_the_folder_last(storage: Storage, monkeypatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("backend.storage.folder._sync_file", lambda fd: calls.append("file"))
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *a, **k: (calls.append("name"), replace(*a, **k))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("folder"), fsync(fd))[1])
    pairs = [(storage.spool(name), name) for name in (NAME, f"{ID}-poster.jpg")]
    for path, _ in pairs:
        path.write_bytes(b"x")
    await storage.keep_all(pairs)
    assert calls == ["file", "file", "folder", "name", "name", "folder"]  # the first folder is the new one's parent


async def test_free_bytes_and_trouble(storage: Storage, tmp_path: Path) -> None:
    assert (await storage.free_bytes() or 0) > 0
    assert await storage.trouble() is None
    (tmp_path / "media" / "tmp").rmdir()
    assert "nothing can be written" in (await storage.trouble() or "")


@pytest.mark.parametrize("url", ["s3://bucket/a", "data/media", "", "file:", "file:///", "file://host/a", "http://a/b"])
def test_a_storage_nobody_knows_is_a_setting_to_change(url: str) -> None:
    with pytest.raises(SettingsError, match="STORAGE_URL"):
        open_storage(url)


def test_a_relative_folder_lies_below_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage("file:data/my%20media")
    monkeypatch.chdir("/")
    assert storage.path(NAME) == tmp_path / "data" / "my media" / "6f" / NAME


WRITER = """
import asyncio, itertools, sys
from backend.storage import open_storage, save

async def main():
    storage = open_storage("file://" + sys.argv[1])
    async def chunks(n):
        for _ in range(40):
            yield bytes([n]) * 50_000
    for n in itertools.count():
        await save(storage, f"01936b2e-7c1f-7d4e-9a50-{n:012x}.bin", chunks(n % 256), "image/png")
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
    storage = open_storage(f"file://{tmp_path}")
    kept = sorted([name async for name in storage.names()])
    assert len(kept) >= acknowledged
    for n, name in enumerate(kept):
        assert await get(storage, name) == bytes([n % 256]) * 2_000_000
    await storage.sweep(0)
    assert len(files(tmp_path)) == len(kept)


async def test_many_files_are_deleted_at_once_and_those_that_are_gone_are_no_error(
    storage: Storage, tmp_path: Path
) -> None:
    names = [f"{ID[:-2]}{number:02x}.png" for number in range(20)]
    for name in names[1:]:
        await put(storage, name, b"x")
    await storage.delete_all(names[:-1])
    assert [await storage.size(name) for name in names] == [None] * 19 + [1]
    (tmp_path / "media" / "ff").symlink_to(tmp_path / "media" / names[-1][34:36])
    await storage.delete_all([f"{ID[:-2]}ff.png"])
    assert await storage.size(names[-1]) == 1
