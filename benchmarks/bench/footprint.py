"""How much memory it takes, and how soon it is there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from bench import load, programs
from bench.table import Figure
from bench.throughput import ask, make_campaign, until_completed

LARGE, OUTPUTS, ROWS = 16_000_000, 50, 1_000_000


async def memory(folder: Path) -> list[Figure]:
    """Resident memory idle, and at most while fifty outputs of 16 MB are collected."""
    with programs.emulator(LARGE) as emulator, programs.service(folder, emulator) as service:
        campaign = await make_campaign(service)
        await load.run(service.port, lambda n: ask(service, campaign, n), 1, 1)
        await until_completed(folder, 1)
        idle = most = service.resident_mb()
        await load.run(service.port, lambda n: ask(service, campaign, n), OUTPUTS, 8)
        done = asyncio.create_task(until_completed(folder, OUTPUTS + 1))
        while not done.done():
            most = max(most, service.resident_mb())
            await asyncio.sleep(0.02)
        await done
    floor = interpreter_mb()
    return [
        Figure("resident memory, idle", idle, "MB", "< 150 MB", f"{floor:,.0f} MB bare interpreter", idle / floor),
        Figure("resident memory, collecting 50 x 16 MB", most, "MB", "flat", f"{idle:,.0f} MB idle", most / idle),
    ]


async def startup(folder: Path) -> list[Figure]:
    """`reelhook --help`; and until the service answers with a million generations in its file."""
    command = shutil.which("reelhook", path=os.path.dirname(sys.executable)) or "reelhook"
    bare = min(_seconds([sys.executable, "-c", "pass"]) for _ in range(5))
    help_s = sorted(_seconds([command, "--help"]) for _ in range(7))[3]
    with programs.emulator() as emulator:
        with programs.service(folder, emulator, "--no-worker") as service:
            campaign, key = await make_campaign(service), service.key
            await load.run(service.port, lambda n: ask(service, campaign, n), 1, 1)
        _multiply(folder / "reelhook.db", ROWS)
        with programs.service(folder, emulator) as service:
            ready_s = service.ready_s
            page = load.request("GET", f"/api/v2/campaigns/{campaign}/generated-images?limit=100", {"X-API-Key": key})
            lists = await load.run(service.port, lambda _: page, 200, 1, keep=True)
    assert lists.statuses == {200: 200}, lists.bodies[-1][:300]
    assert len(json.loads(lists.bodies[-1])["items"]) == 100
    return [
        Figure("reelhook --help, median", help_s, "s", "< 0.6 s", f"{bare:.2f} s bare interpreter", help_s / bare),
        Figure(
            "ready with a million generations", ready_s, "s", "< 1 s", f"{bare:.2f} s bare interpreter", ready_s / bare
        ),
        Figure("a page of 100 among a million, p50", lists.percentile_ms(0.5), "ms", ""),
    ]


def interpreter_mb() -> float:
    """Resident memory of a Python that does nothing."""
    code = "print([l for l in open('/proc/self/status') if l.startswith('VmRSS')][0].split()[1])"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) / 1000


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _multiply(database: Path, count: int) -> None:
    """Copies of the one finished row under other ids: what years of work leave behind."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        names = [row[1] for row in connection.execute("PRAGMA table_info(generations)")]
        kept = ", ".join(name for name in names if name not in ("id", "status", "finished_at"))
        connection.execute("BEGIN")
        connection.execute(
            f"""
            INSERT INTO generations (id, status, finished_at, {kept})
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
            SELECT printf('01900000-%04x-7%03x-8000-%012x', i / 65536, i % 4096, i), 'canceled', created_at, {kept}
            FROM n, (SELECT * FROM generations LIMIT 1)
            """  # noqa: S608
        )
        connection.execute("COMMIT")
