"""The examples of the documentation run as they stand there, against a real service and the emulator."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import av
import mcp
import pytest
from emulating import emulating, until
from PIL import Image
from workshop import working

import reelhook
from backend.cli.demo import Stage, on_stage
from backend.cli.processes import answer_of, environment, free_port
from backend.web.calls.operation import OPERATIONS
from backend.web.server import entry  # noqa: F401  registers every operation

pytestmark = pytest.mark.story

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
        with closing(sqlite3.connect(stage.folder / "data/reelhook.db", timeout=10)) as database, database:
            # The pages together ask for more than a minute's share, now that nobody polls in between.
            database.execute("UPDATE api_keys SET image_limit = '1000/minute', video_limit = '1000/minute'")
        yield stage


@pytest.fixture
def run(stage: Stage, tmp_path: Path) -> Any:
    """Runs a program of the documentation in an empty folder, with this service for the one at port 8000."""
    admin = answer_of(["keys", "create", "--name", "docs", "--admin"], stage.folder, stage.settings).strip()
    emulator = stage.settings["REPLICATE_BASE_URL"].removesuffix("/v1")

    def execute(command: list[str], program: str) -> str:
        program = program.replace("http://localhost:8000", stage.address.url)
        keys = {"REELHOOK_API_KEY": stage.address.key or "", "REELHOOK_ADMIN_KEY": admin}
        keys["REELHOOK_URL"] = stage.address.url
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


def test_the_python_examples_of_the_readme_bring_videos(run: Any, tmp_path: Path) -> None:
    """By our own client and by the `openai` package, which calls its videos deprecated."""
    python = [sys.executable, "-W", "error", "-W", "ignore:The Sora API:DeprecationWarning", "-c"]
    run(python, example("README.md", "python"))
    assert plays(tmp_path / "cabin.mp4") and plays(tmp_path / "rain.mp4")


async def test_the_settings_for_a_model_in_the_readme_give_it_tools(stage: Stage, tmp_path: Path) -> None:
    told = example("README.md", "mcp").replace("http://localhost:8000", stage.address.url)
    settings = json.loads(told.replace("sk_...", stage.address.key or ""))["mcpServers"]["reelhook"]
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    program = mcp.StdioServerParameters(
        command=settings["command"], args=settings["args"], env=environment({}) | here | settings["env"], cwd=tmp_path
    )
    table = page("docs/api.md").split("| tool | what it does |\n|---|---|\n")[1].split("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    async with mcp.Client(program) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == named
        campaign = (await client.call_tool("create_campaign", {"name": "Tools"})).structured_content
        wanted = {"prompt": "A fox in the snow", "campaign_id": (campaign or {})["id"]}
        made = await client.call_tool("generate_image", wanted)
        assert (made.structured_content or {})["generations"][0]["status"] == "completed"


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
    assert plays(tmp_path / "from-openai.mp4")
    with Image.open(tmp_path / "from-openai.jpg") as image:
        image.load()


@pytest.mark.parametrize("name", ["README.md", "docs/api.md"])
def test_the_lines_of_a_receiver_verify_and_tell_what_happened(tmp_path: Path, name: str) -> None:
    port = free_port()
    program = example(name, "receiver").replace("9000", str(port))
    with emulating() as provider, working(tmp_path, provider, webhook_allow_cidrs="127.0.0.0/8") as shop:
        client = shop.http.get("/api/v2/clients").json()["items"][0]["id"]
        url = f"http://127.0.0.1:{port}/"
        made = shop.http.post("/api/v2/webhook-endpoints", json={"url": url, "client_id": client}).json()
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            env=environment({}) | {"SECRET": made["secret"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as receiver:
            try:
                until(lambda: is_listening(port))
                forged = {"webhook-id": "a", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
                with pytest.raises(OSError):
                    urlopen(Request(url, b"{}", forged), timeout=10)
                id = shop.ask()["id"]
                assert receiver.stdout is not None
                lines = (line.split() for line in receiver.stdout)
                said = set(islice((tuple(words[-2:]) for words in lines if words[-1] == id), 2))
            finally:
                receiver.kill()
    assert said == {("generation.processing", id), ("generation.completed", id)}


def is_listening(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_the_examples_of_the_python_client_bring_a_video_and_see_it_happen(run: Any, tmp_path: Path) -> None:
    said = run([sys.executable, "-W", "error", "-c"], example("docs/api.md", "client"))
    assert plays(tmp_path / "kite.mp4")
    assert said.count("generation.completed") >= 1 and "kite.mp4" in said


def test_every_error_of_the_python_client_is_told() -> None:
    told = set(re.findall(r"`([A-Z]\w+)`", page("docs/api.md").split("\n## Python client\n")[1].split("\n## ")[0]))
    errors = {name for name in reelhook.__all__ if issubclass(getattr(reelhook, name), reelhook.ReelhookError)}
    assert errors <= told | {"ReelhookError"}


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
