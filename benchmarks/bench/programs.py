"""The service and the emulator as processes of their own, and what they use."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOKEN = "r8_emulator"
_EMULATOR = """
from backend.emulator import serve
from backend.emulator import EmulatorOptions
serve("127.0.0.1", {port}, options=EmulatorOptions(image_s=0, video_s=0, render="tiny", output_bytes={output_bytes}))
"""


@dataclass
class Service:
    """A running service: its process, address, folder and an admin key."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    key: str
    ready_s: float
    others: list[str]  # keys of other clients

    def resident_mb(self) -> float:
        """Resident memory now, in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1000
        return 0.0


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextmanager
def emulator(output_bytes: int | None = None) -> Iterator[int]:
    """The emulator without delay, serving prepared files; its port."""
    port = free_port()
    code = _EMULATOR.format(port=port, output_bytes=output_bytes)
    with _process([sys.executable, "-c", code], dict(os.environ)):
        wait_for_port(port)
        yield port


@contextmanager
def service(folder: Path, emulator_port: int, *arguments: str, others: int = 0, **settings: str) -> Iterator[Service]:
    """The service with its worker, FULL durability, and no limit on how often a key may ask."""
    port = free_port()
    env = dict(os.environ) | {
        "DATABASE_URL": f"sqlite:///{folder}/reelhook.db",
        "STORAGE_URL": f"file:{folder}/media",
        "BASE_URL": f"http://127.0.0.1:{port}",
        "REPLICATE_API_TOKEN": TOKEN,
        "REPLICATE_BASE_URL": f"http://127.0.0.1:{emulator_port}/v1",
        "IMAGE_RATE_LIMIT": "10000000/minute",
        "VIDEO_RATE_LIMIT": "10000000/minute",
        "WRITE_RATE_LIMIT": "10000000/minute",
        **settings,
    }
    command = [sys.executable, "-m", "backend.cli"]
    making = [*command, "keys", "create", "--name"]
    key, *keys = (_make_key([*making, f"bench {number}"], env, folder) for number in range(others + 1))
    began = time.monotonic()
    with _process([*command, "serve", "--port", str(port), *arguments], env, folder) as process:
        wait_for_port(port)
        yield Service(process, port, folder, key, time.monotonic() - began, keys)


def _make_key(command: list[str], env: dict[str, str], folder: Path) -> str:
    made = subprocess.run([*command, "--json"], env=env, cwd=folder, capture_output=True, check=True)
    return str(json.loads(made.stdout)["key"])


@contextmanager
def _process(command: list[str], env: dict[str, str], folder: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    log = (folder / "service.log").open("ab") if folder else subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(port: int, within_s: float = 30) -> None:
    """Until something listens there."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise TimeoutError(f"nothing listens on {port}")
