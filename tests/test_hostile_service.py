"""What a service that means ill, or a careless program, can make of the Python client and the command line."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import commands
import pytest
from peers import Peer, answering, read_request
from test_client_wire import GENERATION, reply, served

import reelhook
from backend.cli.processes import environment

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\nreelhook: all is well\u202e"
FAILED = GENERATION | {
    "status": "failed",
    "stage": f"odd{ESCAPES}",
    "prompt": f"a fox{ESCAPES}\ud800",
    "error": {"code": "x", "message": f"boom{ESCAPES}"},
}
COMMANDS = (
    ("list",),
    ("show", "x"),
    ("watch", "x"),
    ("cancel", "x"),
    ("retry", "x"),
    ("retry", "x", "--wait"),
    ("generate", "image", "--campaign", "c", "--prompt", "p"),
    ("generate", "video", "--campaign", "c", "--prompt", "p", "--wait"),
)


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    given = environment({}) | {"REELHOOK_URL": url, "REELHOOK_API_KEY": "sk_x"}
    return commands.run(*arguments, environment=given)


def by_route(one: Any) -> Peer:
    """The same generation to every question, and as a page where one is asked for."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            page = head.startswith("get /api/v2/generations?")
            writer.write(reply({"items": [one], "next_cursor": f"c{ESCAPES}"} if page else one))
            await writer.drain()

    return peer


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["plain", "json"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: " ".join(each[:2]))
def test_nothing_a_service_says_is_obeyed_by_the_terminal(command: tuple[str, ...], form: tuple[str, ...]) -> None:
    with served(by_route(FAILED)) as url:
        done = run(url, *command, *form)
    said = (done.stdout + done.stderr).decode()
    assert "Traceback" not in said
    assert not [each for each in said if not each.isprintable() and each != "\n"]
    assert "\nreelhook: all is well" not in f"\n{said}", "a line of its own"
    if form:
        shown = json.loads(done.stdout)
        assert FAILED["prompt"] in [each["prompt"] for each in shown.get("items", [shown])]


def test_a_refusal_is_not_obeyed_either() -> None:
    problem = {"detail": f"no{ESCAPES}", "code": "x", "errors": [{"field": ESCAPES, "message": ESCAPES}]}
    with served(answering(reply(problem, "422 No"))) as url:
        done = run(url, "show", "x")
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode().rstrip("\n").isprintable(), done.stderr


@pytest.mark.parametrize("answer", [{}, [], None, "text", 7], ids=str)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: " ".join(each[:2]))
def test_an_answer_that_is_not_reelhooks_is_said_in_one_line(command: tuple[str, ...], answer: object) -> None:
    with served(answering(reply(answer))) as url:
        done = run(url, *command)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode().startswith("reelhook: ") and done.stderr.count(b"\n") == 1, done.stderr


@pytest.mark.parametrize("command", [("generate", "image", "--campaign", "c", "--prompt", "p"), ("retry", "x")])
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_asked_for(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    seen: list[tuple[str, bytes]] = []
    with served(answering(reply(GENERATION), seen)) as url:
        done = run(url, *command, "--out", str(tmp_path / "file" / "folder"))
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert seen == []


@pytest.mark.parametrize(
    "careless",
    [
        lambda client: client.generate_image(campaign_id="c", prompt="p", idempotency_key="a\r\nX: y"),
        lambda client: client.generate_image(campaign_id="c", prompt="p", idempotency_key="ä"),
        lambda client: client.generate_image(campaign_id="c", prompt=float("nan")),
        lambda client: client.generate_image(campaign_id="c", metadata={"a": {1}}),
        lambda client: client.request("GET", "@example.com/api"),
        lambda client: client.request("GET", ".example.com/api"),
        lambda client: next(client.events(last_event_id="a\r\nX: y")),
    ],
    ids=["header", "letters", "nan", "set", "user", "domain", "stream"],
)
def test_what_cannot_be_asked_is_refused_before_it_is(careless: Any) -> None:
    seen: list[tuple[str, bytes]] = []
    there = served(answering(reply(GENERATION), seen))
    with there as url, reelhook.Client(url, "sk_x") as client, pytest.raises(reelhook.InvalidArgument):
        careless(client)
    assert seen == []


def test_a_client_that_was_closed_says_so() -> None:
    client = reelhook.Client("http://127.0.0.1:9")
    client.close()
    client.close()
    for ask in (lambda: client.generation("x"), lambda: client.wait("x"), lambda: next(client.events())):
        with pytest.raises(reelhook.ReelhookError, match="this client is closed"):
            ask()

    async def same() -> None:
        async with reelhook.AsyncClient("http://127.0.0.1:9") as client:
            pass
        with pytest.raises(reelhook.ReelhookError, match="this client is closed"):
            await client.generation("x")

    asyncio.run(same())


FORKS = """
import os, sys, reelhook
client = reelhook.Client(sys.argv[1], "sk_x")
client.generation("x")
child = os.fork()
client.generation("x")
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_after_a_fork_each_process_has_lines_of_its_own() -> None:
    """On one they share, one would take the other's answer."""
    lines = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(writer)
        while True:
            await read_request(reader)
            writer.write(reply(GENERATION))
            await writer.drain()

    with served(peer) as url:
        subprocess.run([sys.executable, "-c", FORKS, url], check=True, timeout=60)
        assert len(lines) == 2


FULL = """
import contextlib, json, resource, sys
from reelhook import _files, models
generation = models.generation(json.loads(sys.argv[1]) | {"bytes": 10_000})
with contextlib.closing(_files.Part(generation, sys.argv[2])) as part:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, 2))
    part.write(b"abc")
    part.write(b"a" * 9_000)
"""


def test_a_disk_that_is_full_keeps_nothing(tmp_path: Path) -> None:
    """What could not be written is tried once more when the file is closed, and that fails as well."""
    command = [sys.executable, "-c", FULL, json.dumps(GENERATION), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []
