"""`reelhook demo` from the outside: what a newcomer sees first."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image
from waiting import until

from backend.cli.demo import new_folder
from backend.cli.following import tell_failures
from backend.cli.processes import Interrupts, environment

pytestmark = pytest.mark.story

NAMES = {"image", "start-image", "video-from-prompt", "video-from-image"}


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "backend.cli", "demo"],
        cwd=folder,
        # What an operator may have set must not reach the demo: it would spend money or touch real rows.
        env=environment({}) | {"REPLICATE_API_TOKEN": "r8_not-the-emulators", "DATABASE_URL": "sqlite:///real.db"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ports(run: Path) -> list[int]:
    return [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", (run / ".env").read_text())]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def processes_in(folder: Path) -> list[str]:
    """The processes that work in this folder (found by Linux's /proc)."""
    return [process.name for process in Path("/proc").iterdir() if works_in(process, folder)]


def works_in(process: Path, folder: Path) -> bool:
    try:
        return process.name.isdigit() and (process / "cwd").readlink() == folder
    except OSError:  # it has just ended
        return False


def seconds_of(video: Path) -> float:
    """Decodes every frame; the time the last one is shown at."""
    with av.open(str(video)) as container:
        return max(float(frame.time or 0) for frame in container.decode(video=0))


def test_two_demos_at_once_each_make_an_image_and_two_videos(tmp_path: Path) -> None:
    both = [start(tmp_path), start(tmp_path)]
    said = [demo.communicate(timeout=110) for demo in both]
    assert [demo.returncode for demo in both] == [0, 0], said
    runs = sorted((tmp_path / "demo").iterdir())
    assert len(runs) == 2
    assert not (tmp_path / "real.db").exists()
    for run in runs:
        files = {file.stem: file for file in run.iterdir() if file.stem in NAMES}
        assert set(files) == NAMES
        for name in ("image", "start-image"):
            with Image.open(files[name]) as image:
                image.load()
        assert all(seconds_of(files[name]) > 4.5 for name in ("video-from-prompt", "video-from-image"))
        output = next(out for out, _ in said if f"{run}/" in out)
        assert all(str(file) in output for file in files.values())
        assert len(re.findall(r"\bcompleted\b", output)) == 4
        assert not any(is_open(port) for port in ports(run))


def test_what_is_stopped_while_something_starts_waits_until_that_is_noted_down() -> None:
    noted = []
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts, interrupts.held():
        os.kill(os.getpid(), signal.SIGTERM)
        noted.append("started")
    assert noted == ["started"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_stops_what_it_started_and_leaves_the_logs(
    number: signal.Signals, tmp_path: Path
) -> None:
    demo = start(tmp_path)
    until(lambda: list(tmp_path.glob("demo/*/service.log")) or demo.poll() is not None, 60)
    run = next(tmp_path.glob("demo/*"))
    until(lambda: any(is_open(port) for port in ports(run)) or demo.poll() is not None, 60)
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode not in (0, -signal.SIGKILL)
    assert processes_in(run) == []
    assert (run / "emulator.log").stat().st_size and (run / "service.log").exists()


def test_demos_that_begin_in_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    assert len({new_folder(tmp_path / "demo") for _ in range(5)}) == 5


def test_one_that_is_not_completed_fails_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    good = {"id": "a", "status": "completed", "error": None}
    bad = {"id": "b", "status": "failed", "error": {"code": "moderated", "message": "Flagged as sensitive."}}
    assert tell_failures([good]) is True
    assert tell_failures([good, bad]) is False
    assert capsys.readouterr().err == "b failed: Flagged as sensitive.\n"
