"""What this machine can do at best right now: a bare HTTP answer, a durable commit, a durable file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from bench import load, programs

_HELLO = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
async def hello(request):
    return JSONResponse(await request.json(), 202)
uvicorn.run(Starlette(routes=[Route("/hello", hello, methods=["POST"])]), port=int(sys.argv[1]), log_level="error")
"""


async def http_per_second(connections: int = 16, count: int = 8000) -> float:
    """POSTs of JSON a bare Starlette route answers a second, asked by the same load client."""
    port = programs.free_port()
    process = subprocess.Popen([sys.executable, "-c", _HELLO, str(port)])
    try:
        await asyncio.to_thread(programs.wait_for_port, port)
        asked = load.post("/hello", "none", {"campaign_id": "x" * 36, "prompt": "a red bicycle"})
        return (await load.run(port, lambda _: asked, count, connections)).per_second
    finally:
        process.kill()
        process.wait()


def commits_per_second(folder: Path, count: int = 1500) -> float:
    """Inserts SQLite commits a second, each alone, in WAL with synchronous=FULL."""
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
    began = time.perf_counter()
    for _ in range(count):
        connection.execute("INSERT INTO rows (text) VALUES (?)", ("x" * 1000,))
    seconds = time.perf_counter() - began
    connection.close()
    return count / seconds


def files_per_second(folder: Path, count: int = 300) -> float:
    """Files of 100 kB written, synced, renamed and their folder synced a second, one after another."""
    content, began = os.urandom(100_000), time.perf_counter()
    for number in range(count):
        rough = folder / "floor.part"
        with rough.open("wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        rough.rename(folder / f"floor-{number}")
        place = os.open(folder, os.O_RDONLY)
        os.fsync(place)
        os.close(place)
    return count / (time.perf_counter() - began)
