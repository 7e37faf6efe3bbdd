"""What a store promises, whatever it is made of: the folder, and one that has no files of its own."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from elsewhere import Elsewhere
from emulating import until

from backend.core.errors import NotFound, TooLarge
from backend.storage import Spool, Store, Usage, open_storage, write
from backend.storage import spool as spools

ID = "01936b2e-7c1f-7d4e-9a50-3f1b2c4d5e6f"
NAME = f"{ID}.png"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return open_storage(f"file://{tmp_path}/media")[0]


@pytest.fixture(params=["folder", "elsewhere"])
def store(tmp_path: Path, spool: Spool, request: pytest.FixtureRequest) -> Store:
    return Elsewhere(spool) if request.param == "elsewhere" else open_storage(f"file://{tmp_path}/media")[1]


async def put(spool: Spool, store: Store, name: str, content: bytes) -> None:
    spooled = spool.new(name)
    spooled.write_bytes(content)
    await store.put(spooled, name)


async def get(store: Store, name: str, *range_: int) -> bytes:
    return b"".join([chunk async for chunk in store.open(name, *range_)])


def left(tmp_path: Path) -> list[str]:
    """What is in the spool."""
    return os.listdir(tmp_path / "media" / "tmp")


async def test_what_is_put_can_be_had_and_is_no_longer_in_the_spool(spool: Spool, store: Store, tmp_path: Path) -> None:
    await put(spool, store, NAME, b"png")
    assert (await get(store, NAME), await store.size(NAME), left(tmp_path)) == (b"png", 3, [])


async def test_a_file_of_the_same_name_is_replaced(spool: Spool, store: Store) -> None:
    await put(spool, store, NAME, b"long before")
    await put(spool, store, NAME, b"now")
    assert (await get(store, NAME), await store.size(NAME)) == (b"now", 3)


async def test_many_files_are_put_and_deleted_at_once(spool: Spool, store: Store, tmp_path: Path) -> None:
    names = [f"{ID[:-2]}{number:02x}.png" for number in range(20)]
    spooled = [spool.new(name) for name in names[1:]]
    for path in spooled:
        path.write_bytes(b"x")
    await store.put_all(list(zip(spooled, names[1:], strict=True)))
    assert left(tmp_path) == []
    await store.delete_all(names[:-1])  # the first was never there
    assert [await store.size(name) for name in names] == [None] * 19 + [1]


async def test_any_part_of_a_file_can_be_read_in_chunks(spool: Spool, store: Store) -> None:
    content = os.urandom(700_000)
    await put(spool, store, NAME, content)
    for start, end in ((0, None), (0, 10), (262_144, None), (5, 600_000), (699_999, None), (0, 9_999_999), (9, 9)):
        assert await get(store, NAME, *([start] if end is None else [start, end])) == content[start:end]
    assert all([len(chunk) <= 256 << 10 async for chunk in store.open(NAME)])


async def test_a_reader_who_leaves_early_leaves_no_open_file(spool: Spool, store: Store) -> None:
    await put(spool, store, NAME, bytes(1 << 20))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        chunks = store.open(NAME)
        await anext(chunks)
        await chunks.aclose()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_what_is_not_there_is_not_found_and_may_be_deleted(spool: Spool, store: Store) -> None:
    assert await store.size(NAME) is None
    await store.delete(NAME)
    with pytest.raises(NotFound):
        await get(store, NAME)
    with pytest.raises(NotFound):
        async with store.local(NAME):
            pass
    await put(spool, store, NAME, b"x")
    await store.delete(NAME)
    assert await store.size(NAME) is None


NO_NAMES = ["", ".", "..", "../a.png", "a/../../b.png", "/etc/passwd", "ab", "a.png", "AB.png", "ab.png/", "ab.p.g"]
NO_NAMES += ["-ab.png", "ab\0.png", "ab.png\n", "ab\\c.png", "äb.png", "ab..png", "a" * 200 + ".png", "tmp/../ab.png"]


@pytest.mark.parametrize("name", NO_NAMES)
async def test_a_name_that_is_none_is_refused_everywhere(spool: Spool, store: Store, tmp_path: Path, name: str) -> None:
    async def lend(name: str) -> None:
        async with store.local(name):
            pass

    (tmp_path / "file").write_bytes(b"x")
    for ask in (store.size, store.url, store.delete, partial(get, store), partial(store.put, tmp_path / "file"), lend):
        with pytest.raises(NotFound):
            await ask(name)
    with pytest.raises(NotFound):
        await store.delete_all([name])
    if name != "ab":  # spooled before its suffix is known
        with pytest.raises(NotFound):
            spool.new(name)


async def test_names_lists_what_is_stored_and_nothing_temporary(spool: Spool, store: Store) -> None:
    names = {f"{ID[:-2]}{n:02x}.png" for n in range(40)}
    for name in names:
        await put(spool, store, name, b"x")
    spool.new(NAME).write_bytes(b"x")
    assert {name async for name in store.names()} == names


async def test_whoever_needs_a_path_is_lent_one_and_nothing_stays_of_it(
    spool: Spool, store: Store, tmp_path: Path
) -> None:
    content = os.urandom(700_000)
    await put(spool, store, NAME, content)
    for fails in (False, True):
        with pytest.raises(ZeroDivisionError) if fails else pytest.MonkeyPatch.context():
            async with store.local(NAME) as path, store.local(NAME) as again:
                assert path.read_bytes() == again.read_bytes() == content
                assert path.stat().st_mode & 0o777 == 0o600
                if fails:
                    raise ZeroDivisionError
        assert left(tmp_path) == [] and await get(store, NAME) == content


async def test_what_is_lent_may_be_linked_and_is_durable(spool: Spool, store: Store, tmp_path: Path) -> None:
    """A backup links what it is lent: were that not on the disk, a power loss would leave an empty backup."""
    synced: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        fsync, sync_file = os.fsync, "backend.storage.folder._sync_file"
        patch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
        patch.setattr(sync_file, lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), os.fdatasync(fd))[1])
        await put(spool, store, NAME, b"whole")
        async with store.local(NAME) as path:
            os.link(path, tmp_path / "linked")
            assert [one for one in synced if Path(one).name.startswith(NAME)]
    await store.delete(NAME)
    assert (tmp_path / "linked").read_bytes() == b"whole"


async def test_no_more_is_lent_than_is_wanted(spool: Spool, store: Store, tmp_path: Path) -> None:
    await put(spool, store, NAME, b"123")
    async with store.local(NAME, most_bytes=3) as path:
        assert path.read_bytes() == b"123"
    with pytest.raises(TooLarge):
        async with store.local(NAME, most_bytes=2):
            pass
    assert left(tmp_path) == []


async def chunks_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 70_000):
        yield content[start : start + 70_000]


async def test_only_old_temporary_files_are_swept(spool: Spool, store: Store) -> None:
    await put(spool, store, NAME, b"x")
    old, new = spool.new(NAME), spool.new(ID)
    old.write_bytes(b"x")
    new.write_bytes(b"xyz")
    assert await spool.usage() == Usage(2, 4)
    os.utime(old, (1, 1))
    assert await spool.sweep(3600) == 1
    assert not old.exists() and new.exists() and await store.size(NAME) == 1
    assert await spool.usage() == Usage(1, 3)


async def test_a_stream_is_written_with_its_length_and_hash(spool: Spool) -> None:
    content, path = os.urandom(3 << 20), spool.new()
    assert await write(path, chunks_of(content)) == (len(content), hashlib.sha256(content).hexdigest())
    assert path.read_bytes() == content


async def test_of_a_copy_that_breaks_off_nothing_stays(spool: Spool, tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        async with spool.copy(NAME, chunks()):
            pass
    assert left(tmp_path) == []


async def test_so_many_copies_are_lent_at_a_time_and_the_next_one_waits(spool: Spool, tmp_path: Path) -> None:
    free, most = asyncio.Event(), 0

    async def borrow() -> None:
        nonlocal most
        async with spool.copy(NAME, chunks_of(b"x")):
            most = max(most, len(left(tmp_path)))
            await free.wait()

    borrowers = [asyncio.create_task(borrow()) for _ in range(3 * spools.COPIES)]
    await asyncio.to_thread(until, lambda: len(left(tmp_path)) == spools.COPIES)
    free.set()
    await asyncio.gather(*borrowers)
    assert (most, left(tmp_path)) == (spools.COPIES, [])
