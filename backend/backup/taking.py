"""Takes a backup: it is made beside its final name, and renamed when all of it would survive a power loss."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from backend import __version__
from backend.backup import disk
from backend.backup.manifest import DATABASE, KEY, MANIFEST, MEDIA, SUMS, Manifest
from backend.backup.partial import partial_folder
from backend.config import Settings
from backend.core import filing
from backend.core.errors import NotFound, ReelhookError, StorageFull
from backend.db import snapshot
from backend.db.sqlite import sqlite_path
from backend.disk import durable, room
from backend.storage import Store, folder_of, open_storage


def take(settings: Settings, target: Path, *, media: bool = True) -> Manifest:
    """Copy the database, the data key and the media into the new folder `target`. Raises ReelhookError.

    The service may run: it is only read. Whatever goes wrong, nothing half-made has that name.
    """
    check_engines(settings, media=media)
    target = target.absolute()
    database = sqlite_path(settings.database_url)
    if not database.is_file():
        raise ReelhookError(f"there is no database at {database}")
    store = open_storage(settings.storage_url)[1] if media else None
    _check_target(target)
    with partial_folder(target) as partial:
        try:
            with room.needed():
                made = _fill(partial, database, store)
                disk.sync_folders(partial)  # before the rename: what has the name survives a power loss
                os.rename(partial, target)
                durable.sync(target.parent)
        except StorageFull as error:
            raise ReelhookError(f"there is no room for the backup at {target}") from error
    return made


def check_engines(settings: Settings, *, media: bool) -> None:
    """Raise ReelhookError for an engine that has its own tools for backups."""
    engine, store = (url.partition(":")[0] for url in (settings.database_url, settings.storage_url))
    if engine != "sqlite":
        raise ReelhookError(f"DATABASE_URL: {engine}: only SQLite is copied; use the engine's own tools, as pg_dump")
    if media and store != "file":
        raise ReelhookError(f"STORAGE_URL: {store}: only a folder is copied; use the store's own tools and --no-media")


@dataclass
class _Progress:
    """SHA256SUMS as it grows, and what was found on the way. `missing` has the row's id by the name of the file."""

    sums: IO[str]
    files: int = 0
    bytes: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    def note(self, path: str, sha256: str) -> None:
        self.sums.write(f"{sha256}  {path}\n")


def _fill(partial: Path, database: Path, store: Store | None) -> Manifest:
    """Copy the database first: then each of its rows has its files, unless they are deleted meanwhile."""
    begun_at = datetime.now(UTC)
    copy = partial / DATABASE
    _copy_database(database, copy)
    # The sums are written as files are copied: to read everything again would take as long as the copy.
    with open(disk.create(partial / SUMS), "w", encoding="ascii", newline="\n") as file:
        progress = _Progress(file)
        progress.note(DATABASE, disk.digest(copy))
        key = database.with_name(KEY)
        if has_key := key.is_file():
            progress.note(KEY, disk.copy(key, partial / KEY))
        if store:
            asyncio.run(_copy_media(store, copy, partial, progress))
        lost, gone = _sort_missing(progress.missing, database)
        made = Manifest(
            reelhook=__version__,
            created_at=begun_at,
            schema_version=snapshot.version(copy),
            counts=snapshot.counts(copy),
            media=store is not None,
            data_key=has_key,
            files=progress.files,
            bytes=progress.bytes,
            deleted_meanwhile=sorted(gone),
            lost=sorted(lost + progress.differing),
        )
        _write_manifest(partial / MANIFEST, made)
        progress.note(MANIFEST, disk.digest(partial / MANIFEST))
        file.flush()
        os.fsync(file.fileno())
    return made


def _copy_database(database: Path, copy: Path) -> None:
    """Copy the database as it is at one moment. Raises ReelhookError for one that is not ours, or is damaged."""
    snapshot.take(database, copy)
    if not snapshot.is_ours(copy):
        raise ReelhookError(f"{database} has no tables of ours: there is nothing to back up")
    snapshot.check(copy)
    durable.sync(copy)


def _sort_missing(missing: dict[str, str], database: Path) -> tuple[list[str], list[str]]:
    """Return the missing files whose rows still exist, and those whose rows were deleted since the copy."""
    there = snapshot.still_there(database, set(missing.values()))
    return [name for name, id in missing.items() if id in there], [
        name for name, id in missing.items() if id not in there
    ]


async def _copy_media(store: Store, copy: Path, partial: Path, progress: _Progress) -> None:
    """Copy every file that a row of the copy names, under the same name and in the same sub-folder."""
    disk.make_folder(partial / MEDIA)
    for row in snapshot.kept(copy):
        for name, *_ in row.files:
            await _copy_file(store, partial, name, progress, row)
        if row.poster_name:
            await _copy_file(store, partial, row.poster_name, progress, row)
        if row.kind == "video":
            for which in filing.FRAMES:
                await _copy_file(store, partial, filing.frame(row.id, which), progress, row)


async def _copy_file(store: Store, partial: Path, name: str, progress: _Progress, row: snapshot.KeptFiles) -> None:
    """Copy one file, if its bytes are those its row tells of. A frame may be missing: it can be made again."""
    target = partial / MEDIA / folder_of(name) / name
    try:
        async with store.local(name) as source:
            disk.make_folder(target.parent)
            sha256 = disk.link_or_copy(source, target)
    except (NotFound, FileNotFoundError, NotADirectoryError):
        if name == row.poster_name or any(name == each for each, *_ in row.files):
            progress.missing[name] = row.id
        return
    length = target.stat().st_size
    if any(name == each and (length, sha256) != (told, hashed) for each, told, hashed in row.files):
        target.unlink()
        progress.differing.append(name)
        return
    progress.note(f"{MEDIA}/{target.parent.name}/{name}", sha256)
    progress.files += 1
    progress.bytes += length


def _write_manifest(path: Path, made: Manifest) -> None:
    with open(disk.create(path), "w", encoding="utf-8") as file:
        file.write(made.model_dump_json(indent=2) + "\n")
    durable.sync(path)


def _check_target(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()) or (target.is_dir() and any(target.iterdir())):
        raise ReelhookError(f"{target} exists: a backup is a new folder")
