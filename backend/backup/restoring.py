"""A backup is put back where there is nothing: the media first and the database last, under its name only when done.

So a restore that was killed leaves no database, and can be run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend import app
from backend.backup import disk
from backend.backup import manifest as manifests
from backend.backup.checks import check_backup, check_store, check_target, media_of
from backend.backup.manifest import DATABASE, KEY, Manifest
from backend.backup.taking import check_engines
from backend.config import Settings
from backend.context import Context
from backend.core.errors import ReelhookError, StorageFull
from backend.core.formats import time
from backend.core.people import ApiKey
from backend.db import audit, keys, leases, restores, snapshot, versions
from backend.db.audit import Subject
from backend.db.file import only_process
from backend.db.sqlite import sqlite_path
from backend.disk import durable, room
from backend.storage import Spool, Store, open_storage
from backend.upkeep import after_restore

MOST_NOTED = 100  # admin keys that the audit log names
AT_ONCE = 32  # files that share a wait for the disk


@dataclass(frozen=True)
class Restored:
    """What was put back. `held` requests may have been sent after the backup was made, so they are looked for.

    `admins` are the admin keys that it brings: whoever has one of them can do everything.
    `files` and `bytes` are those of the media; `left_out` names those that are damaged in the backup, whose rows are
    put back all the same.
    """

    manifest: Manifest
    held: int
    schema_version: int
    files: int
    bytes: int
    left_out: list[str]
    admins: list[ApiKey]
    generations: int


def restore(settings: Settings, source: Path, *, resume: bool = False, without_damaged: bool = False) -> Restored:
    """Put a backup into DATABASE_URL and STORAGE_URL, which must be empty. Raises ReelhookError.

    With `resume` what was waiting is sent as if no time had passed: only right when nothing ran after the backup.
    With `without_damaged` stored files that are not what they were are left out; all else must be whole in any case.
    """
    check_engines(settings, media=False)
    target = sqlite_path(settings.database_url).absolute()
    found = manifests.read(source)
    check_engines(settings, media=found.media)
    # All checks come first: nothing is written into a place that turns out to be wrong.
    with _alone(target):
        storage = open_storage(settings.storage_url) if found.media else None
        check_target(target, source)
        if storage:
            asyncio.run(check_store(storage[1], source))
        damaged = check_backup(source, found, without_damaged)
        try:
            with room.needed():
                return _put_back(settings, source, found, target, storage, resume, damaged)
        except StorageFull as error:
            raise ReelhookError("there is no room for all of it: make some and run this again") from error


def _put_back(
    settings: Settings,
    source: Path,
    found: Manifest,
    target: Path,
    storage: tuple[Spool, Store] | None,
    resume: bool,
    damaged: set[str],
) -> Restored:
    files, total = asyncio.run(_bring_media(*storage, source, damaged)) if storage else (0, 0)
    if found.data_key and not target.with_name(KEY).exists():
        _bring(source / KEY, target.with_name(KEY))
    rough = _copy_database(source, target)
    held, version, admins = asyncio.run(_prepare(settings, rough, found.taken_ms, resume))
    generations = _put_in_place(rough, target)
    left_out = sorted(path.rpartition("/")[2] for path in damaged)
    return Restored(found, held, version, files, total, left_out, admins, generations)


def _copy_database(source: Path, target: Path) -> Path:
    """Copy the database beside its place, and return where. What an earlier restore left there is removed."""
    rough = target.with_name(f"{target.name}.restoring")
    for old in target.parent.glob(f"{rough.name}*"):
        old.unlink()
    sums = {path: sha256 for path, sha256 in manifests.sums(source) if path == DATABASE}
    if disk.copy(source / DATABASE, rough) != sums[DATABASE]:
        raise ReelhookError(f"the backup changed while it was read: {source / DATABASE}")
    return rough


def _put_in_place(rough: Path, target: Path) -> int:
    """Give the database its name once all of it is on the disk. Returns how many generations it has."""
    for old in target.parent.glob(f"{rough.name}.*"):
        old.unlink()  # the copy that a migration makes: the backup is one
    if list(target.parent.glob(f"{rough.name}-*")):
        raise ReelhookError(f"{rough} could not be closed: run this again")
    # Before the rename: the name must never lead to a file whose bytes a power loss can still take away.
    durable.sync(rough)
    generations = snapshot.counts(rough)["generations"]
    os.rename(rough, target)
    durable.sync(target.parent)
    return generations


async def _prepare(settings: Settings, rough: Path, taken_ms: int, resume: bool) -> tuple[int, int, list[ApiKey]]:
    """Bring the copy to the current schema and to this moment.

    How many requests are held, the schema's version, and the admin keys that are accepted.
    """
    async with app.open_context(settings.model_copy(update={"database_url": f"sqlite:///{rough}"})) as ctx:
        await ctx.db.write(lambda tx: leases.release_all(tx, ctx.now()))
        await ctx.db.write(lambda tx: restores.insert(tx, taken_ms, ctx.now()))
        held, version = await _hold(ctx, taken_ms, resume), len(versions.known())
        admins = await ctx.db.read(lambda tx: keys.admins(tx, ctx.now()))
        told: dict[str, Any] = {"taken_at": time(taken_ms), "held": held, "resume": resume, "schema_version": version}
        told["admin_keys"] = [key.id for key in admins[:MOST_NOTED]]
        user, subject = audit.user(), Subject("database", None)
        await ctx.db.write(lambda tx: audit.record(tx, user, "restore", subject, ctx.now(), new=told))
        return held, version, admins


async def _hold(ctx: Context, taken_ms: int, resume: bool) -> int:
    return 0 if resume else await after_restore.hold_unsent(ctx, taken_ms)


async def _bring_media(spool: Spool, store: Store, source: Path, damaged: set[str]) -> tuple[int, int]:
    """Every whole file of the backup under its name, a few at a time; how many, and how many bytes.

    Those that are there were checked.
    """
    batch: list[tuple[Path, str]] = []
    files = total = 0
    for path, sha256 in media_of(source):
        if path in damaged:
            continue
        name, file = path.rpartition("/")[2], source / path
        files, total = files + 1, total + file.stat().st_size
        if await store.size(name) is not None:
            continue
        spooled = spool.new(name)
        if await asyncio.to_thread(disk.copy, file, spooled) != sha256:
            raise ReelhookError(f"the backup changed while it was read: {file}")
        batch.append((spooled, name))
        if len(batch) == AT_ONCE:
            await store.put_all(batch)
            batch = []
    await store.put_all(batch)
    return files, total


def _bring(source: Path, target: Path) -> None:
    """Copy a small file, so that its name appears only when it is whole."""
    rough = target.with_name(f"{target.name}.restoring")
    rough.unlink(missing_ok=True)
    disk.copy(source, rough)
    os.rename(rough, target)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Make sure that no service and no worker runs on this database, and that none can start."""
    with contextlib.ExitStack() as locks:
        alone = locks.enter_context(only_process(target, "serve"))
        if not alone:  # a newer SQLite, where both may run
            locks.enter_context(only_process(target, "worker"))
        yield
