"""`serve` is a process: it says where it is, and it stops when it is told to."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from emulating import IMAGE, TOKEN, emulating, png

from backend.emulator import EmulatorOptions


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running emulator on a free port, and its base URL."""
    code = f"from pathlib import Path; from backend import emulator; emulator.serve(port=0, {', '.join(arguments)})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout
            line = running.stdout.readline()
            found = re.fullmatch(r"Replicate emulator ready at (http://127\.0\.0\.1:\d+/v1)\n", line)
            assert found, line
            yield running, found[1]
        finally:
            running.terminate()
            running.wait(10)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_at_once_even_while_rendering_and_waiting(by: signal.Signals) -> None:
    with process() as (running, base):
        authorization = {"authorization": f"Bearer {TOKEN}"}
        files = {"content": ("a.png", png(), "image/png")}
        start = httpx.post(f"{base}/files", files=files, headers=authorization).json()["urls"]["get"]
        film = {"input": {"prompt": "x", "start_image": start, "duration": 10, "mode": "pro"}}
        url = f"{base}/models/kwaivgi/kling-v2.1/predictions"
        assert httpx.post(url, json=film, headers=authorization).status_code == 201
        began = time.monotonic()
        running.send_signal(by)
        running.wait(10)
        assert time.monotonic() - began < 5


def test_faults_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[faults]]\nkind = "create_402"\n')
    with process(f"faults=Path({str(path)!r})") as (_, base):
        answer = httpx.post(
            f"{base}/models/{IMAGE}/predictions",
            json={"input": {"prompt": "x"}},
            headers={"authorization": f"Bearer {TOKEN}"},
        )
        assert answer.status_code == 402


def test_the_temporary_folder_is_gone_afterwards_and_a_given_one_stays(tmp_path: Path) -> None:
    with emulating(EmulatorOptions(image_s=0, folder=tmp_path)) as provider:
        provider.made()
        assert len(list((tmp_path / "outputs").iterdir())) == 1
    assert len(list((tmp_path / "outputs").iterdir())) == 1
    with emulating() as provider:
        folder: Path = provider.server.config.app.state.emulator.folder  # type: ignore[union-attr]
        assert folder.is_dir()
    assert not folder.exists()
