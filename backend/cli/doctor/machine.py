"""What the doctor looks at on this machine: the database, the storage, Redis."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from backend.cli.doctor.check import Check, State
from backend.config import Settings
from backend.core.errors import MediaUnavailable, ReelhookError
from backend.core.generation import UNCLEAR
from backend.db.file import IS_SAFE_FOR_SEVERAL, SQLITE_VERSION, bring
from backend.db.sqlite import sqlite_path

LOCKED_S = 4.0  # for a database that somebody holds locked
REDIS_S = 5.0
CAGE_HOLDS = ("memory, time and files are limited", "no network", "no files", "ends with the service")


async def database(settings: Settings) -> list[Check]:
    """Check that the database can be opened and has, or will get, the current schema."""
    return [await asyncio.to_thread(_database, settings.database_url), _sqlite()]


def _database(url: str) -> Check:
    try:
        file = sqlite_path(url)
        report = bring(file, check=True, wait_s=LOCKED_S)
    except ReelhookError as error:
        return Check("DATABASE_URL", "", State.FAIL, error.message.removeprefix("DATABASE_URL: "))
    if not _is_writable(file.parent):
        return Check("DATABASE_URL", "", State.FAIL, f"{file.parent.resolve()} cannot be written to")
    if report.before == 0 and report.ran:
        return Check("DATABASE_URL", "", State.OK, f"{file} will be made at the first start")
    if report.ran:
        waiting = ", ".join(report.ran)
        return Check("DATABASE_URL", "", State.WARN, f"the next start or `reelhook migrate` will run {waiting}")
    return Check("DATABASE_URL", "", State.OK, f"at the current schema ({report.after})")


def _is_writable(folder: Path) -> bool:
    """Whether the folder, or the nearest one above that exists, can be written to."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def _sqlite() -> Check:
    if IS_SAFE_FOR_SEVERAL:
        return Check("SQLite", SQLITE_VERSION, State.OK, "the library Python is linked to")
    advice = "before 3.51.3 a file can be damaged when several processes write to it: run one process only"
    return Check("SQLite", SQLITE_VERSION, State.WARN, advice)


async def work(settings: Settings) -> list[Check]:
    """Count what a person should look at: requests with an unknown end, bills without a result, what was set aside."""
    try:
        file = sqlite_path(settings.database_url)
        report = await asyncio.to_thread(bring, file, check=True, wait_s=LOCKED_S)
        if report.before == 0 or report.ran:
            return []  # there is none yet, or none that this version can read
        unclear, charged, aside = await _troubled(file)
    except ReelhookError:
        return []  # the check of the database says why
    found = {"unclear": unclear, "possibly charged": charged, "set aside": aside}
    told = ", ".join(f"{count} {what}" for what, count in found.items())
    advice = "see `GET /api/v2/generations` with stage=unclear or possibly_charged=true" if any(found.values()) else ""
    return [Check("generations", told, State.WARN if advice else State.OK, advice or "nothing waits for a person")]


async def _troubled(file: Path) -> tuple[int, int, int]:
    from backend.db import operations
    from backend.db.connection import Tx
    from backend.db.sqlite import SqliteDb

    async def look(tx: Tx) -> tuple[int, int, int]:
        unclear = (await operations.counts(tx)).get(UNCLEAR, 0)
        return unclear, await operations.possibly_charged(tx), await operations.set_aside(tx)

    db = await SqliteDb.open(file, checkpoints=False)
    try:
        return await db.read(look)
    finally:
        await db.close()


async def storage(settings: Settings) -> list[Check]:
    """Check that a file can be stored, and that there is room."""
    from backend.storage import open_storage

    name = f"doctor-{time.time_ns():x}.bin"
    try:
        spool, store = open_storage(settings.storage_url)
        spooled = spool.new(name)
        await asyncio.to_thread(spooled.write_bytes, b"doctor")
        await store.put(spooled, name)
        await store.delete(name)
        free = await spool.free_bytes()
    except (ReelhookError, OSError) as error:
        why = str(error).removeprefix("STORAGE_URL: ")
        advice = why if why.startswith("nothing can be stored") else f"nothing can be stored: {why}"
        return [Check("STORAGE_URL", "", State.FAIL, advice)]
    free_mb = None if free is None else free // 1_000_000
    if free_mb is not None and free_mb < settings.min_free_mb:
        advice = f"only {free_mb} MB free; nothing new is accepted below MIN_FREE_MB"
        return [Check("STORAGE_URL", "", State.FAIL, advice)]
    return [Check("STORAGE_URL", "", State.OK, "writable" + ("" if free_mb is None else f", {free_mb} MB free"))]


async def cage() -> list[Check]:
    """Check that strangers' files can be inspected, and what is kept from the process that does it."""
    from backend.media.cage import Cage

    looking = Cage()
    try:
        holds = await looking.warm()
    except MediaUnavailable as error:
        return [Check("cage", "", State.FAIL, f"no upload and no output can be looked at: {error.message}")]
    finally:
        await looking.close()
    if missing := [what for what in CAGE_HOLDS if what not in holds]:
        advice = f"this system does not give all of it: without {', '.join(missing)}; see docs/operating.md"
        return [Check("cage", ", ".join(holds), State.WARN, advice)]
    return [Check("cage", ", ".join(holds), State.OK, "what is kept from the process that looks into files")]


async def redis(settings: Settings) -> list[Check]:
    """Check Redis, if rate limits are shared there."""
    if settings.redis_url is None:
        return []
    from redis import RedisError
    from redis.asyncio import from_url

    client: Any = from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2)
    try:
        async with asyncio.timeout(REDIS_S):
            await client.ping()
    except (RedisError, OSError) as error:
        advice = f"no answer ({type(error).__name__}): each process would count for itself"
        return [Check("REDIS_URL", "", State.WARN, advice)]
    finally:
        await client.aclose()
    return [Check("REDIS_URL", "", State.OK, "answers")]
