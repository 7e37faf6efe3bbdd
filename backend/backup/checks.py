"""What must be true before a backup is put back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from backend.backup import disk
from backend.backup import manifest as manifests
from backend.backup.manifest import DATABASE, KEY, MEDIA, Manifest
from backend.core.errors import NotFound, ReelhookError
from backend.db import migrate, schema, schema_values, snapshot
from backend.disk import data_key
from backend.storage import Store, check_name


def media_of(source: Path) -> Iterator[tuple[str, str]]:
    """Return the path in the backup and the SHA-256 of each stored file."""
    return ((path, sha256) for path, sha256 in manifests.sums(source) if path.startswith(f"{MEDIA}/"))


def check_backup(source: Path, found: Manifest, without_damaged: bool) -> set[str]:
    """Return the stored files that are damaged. Raises ReelhookError for any other damage.

    All else must be as it was written, and the database one that this program can take. Damaged stored files are
    accepted only `without_damaged`.
    """
    damaged = manifests.damage(source, found)
    _check_damage(source, damaged, without_damaged)
    if found.data_key:
        data_key.check(manifests.key(source), source / KEY)
    schema.check(source / DATABASE)  # before anything of it is run
    snapshot.check(source / DATABASE)
    try:
        migrate.check(source / DATABASE)
    except migrate.MigrationError as error:
        raise ReelhookError(f"{source / DATABASE}: {error}") from error
    schema_values.check(source / DATABASE)
    check_names(source / DATABASE)
    return set(damaged)


def check_names(database: Path) -> None:
    """Raise ReelhookError for a row that names a file which no storage can have: it could lead elsewhere."""
    for name in snapshot.names(database):
        try:
            check_name(name)
        except NotFound:
            raise ReelhookError(f"{database} names a file that no storage can have: {name[:80]!r}") from None


def _check_damage(source: Path, damaged: dict[str, str], without_damaged: bool) -> None:
    vital = [path for path in damaged if not path.startswith(f"{MEDIA}/")]
    if vital or (damaged and not without_damaged):
        first = min(vital or damaged)
        way_out = "" if vital else " (`--without-damaged` puts back all but such files)"
        raise ReelhookError(f"the backup is damaged: {source / first} {damaged[first]}{way_out}")


def check_target(target: Path, source: Path) -> None:
    """Raise ReelhookError if there is a database, a file that SQLite would take for part of it, or another key."""
    if target.exists() and target.stat().st_size:
        raise ReelhookError(f"{target} exists: a backup is put back only where there is no database; move it away")
    for suffix in ("-wal", "-shm", "-journal"):
        if target.with_name(target.name + suffix).exists():
            raise ReelhookError(f"{target}{suffix} belongs to a database that was here: move it away")
    key = target.with_name(KEY)
    if key.exists() and (source / KEY).exists() and key.read_bytes() != manifests.key(source):
        raise ReelhookError(f"{key} exists and is another key than that of the backup: move it away")


async def check_store(store: Store, source: Path) -> None:
    """Raise ReelhookError unless all files in the storage came from this backup, by a restore that was broken off."""
    there = {name async for name in store.names()}
    if not there:
        return
    for written, sha256 in media_of(source):
        name = written.rpartition("/")[2]
        if name in there:
            async with store.local(name) as path:
                if await asyncio.to_thread(disk.digest, path) == sha256:
                    there.discard(name)
    if there:
        raise ReelhookError(f"STORAGE_URL has files that are not of this backup, as {min(there)}: choose an empty one")
