"""The examples of the documentation run as they stand there, against a real service and the emulator."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import av
import pytest
from PIL import Image

from backend.cli.demo import Stage, on_stage
from backend.cli.processes import answer_of, environment
from backend.web import server  # noqa: F401  registers every operation
from backend.web.operation import OPERATIONS

ROOT = Path(__file__).parent.parent


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def example(name: str, language: str) -> str:
    """The blocks of a page that are marked to be run, in their order, as one program."""
    blocks = re.findall(rf"<!-- run: {language} -->\n```\w+\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    assert blocks, f"{name} has no {language} to run"
    return "\n".join(blocks)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with on_stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def run(stage: Stage, tmp_path: Path) -> Any:
    """Runs a program of the documentation in an empty folder, with this service for the one at port 8000."""
    admin = answer_of(["keys", "create", "--name", "docs", "--admin"], stage.folder, stage.settings).strip()
    emulator = stage.settings["REPLICATE_BASE_URL"].removesuffix("/v1")

    def execute(command: list[str], program: str) -> str:
        program = program.replace("http://localhost:8000", stage.address.url)
        keys = {"REELHOOK_API_KEY": stage.address.key or "", "REELHOOK_ADMIN_KEY": admin}
        done = subprocess.run(
            [*command, program.replace("http://localhost:8900", emulator)],
            cwd=tmp_path,
            env=environment({}) | keys | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        return done.stdout

    return execute


def shell() -> list[str]:
    if not (shutil.which("curl") and shutil.which("bash")):
        assert os.environ.get("REQUIRE_SERVICES") != "1", "curl and bash are needed"
        pytest.skip("curl and bash are needed")
    return ["bash", "-euo", "pipefail", "-c"]


def plays(video: Path) -> bool:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0)) > 50


def test_the_curl_example_of_the_readme_brings_a_video(run: Any, tmp_path: Path) -> None:
    run(shell(), example("README.md", "sh"))
    assert plays(tmp_path / "kite.mp4")


def test_the_python_example_of_the_readme_brings_a_video(run: Any, tmp_path: Path) -> None:
    run([sys.executable, "-W", "error", "-c"], example("README.md", "python"))
    assert plays(tmp_path / "cabin.mp4")


def test_every_example_of_the_api_page_works_in_its_order(run: Any, tmp_path: Path) -> None:
    Image.new("RGB", (320, 180), "teal").save(tmp_path / "photo.png")
    said = run(shell(), example("docs/api.md", "sh"))
    assert (tmp_path / "copy-of-photo.png").read_bytes() == (tmp_path / "photo.png").read_bytes()
    assert (tmp_path / "same.mp4").read_bytes() == (tmp_path / "kite.mp4").read_bytes()
    assert (tmp_path / "start.bin").read_bytes() == (tmp_path / "kite.mp4").read_bytes()[:1024]
    for picture in ("kite.jpg", "kite-small.jpg", "kite-poster.jpg", "last.jpg", "clip-last.jpg"):
        with Image.open(tmp_path / picture) as image:
            image.load()
    assert said.count(" is completed") == 4


def test_every_get_of_the_api_page_stands_in_an_example() -> None:
    called = re.sub(
        r'\$\(field id < key\.json\)|"?\$\w+"?', "X", example("docs/api.md", "sh").replace("$api", "/api/v2")
    )
    for made in OPERATIONS:
        if made.in_schema and made.path.startswith("/api/"):
            pattern = re.sub(r"\\{\w+\\}", "[^/ ]+", re.escape(made.path))
            assert re.search(pattern + r'(?=["?\s]|$)', called, re.MULTILINE), f"{made.method} {made.path}"


def test_the_metrics_that_are_named_are_counted(stage: Stage) -> None:
    with urlopen(f"{stage.address.url}/metrics", timeout=10) as answer:
        there = set(re.findall(r"^# TYPE (reelhook_\w+)", answer.read().decode(), re.MULTILINE))
    named = set(re.findall(r"`(reelhook_\w+)`", page("docs/operating.md")))
    assert named == {name for name in there if not name.endswith("_created")}
