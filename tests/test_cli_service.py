"""The commands that talk to a running service, against the real one and the emulator."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import commands
import pytest
from emulating import until
from PIL import Image

from backend.cli.demo import Stage, on_stage
from backend.cli.processes import answer_of, environment

pytestmark = pytest.mark.story

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with on_stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture(scope="module")
def campaign(stage: Stage) -> str:
    import asyncio

    async def make() -> str:
        async with stage.address.open() as remote:
            return (await remote.create_campaign("Autumn")).id

    return asyncio.run(make())


@pytest.fixture
def reelhook(stage: Stage, tmp_path: Path) -> Run:
    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        given = {"REELHOOK_URL": stage.address.url, "REELHOOK_API_KEY": stage.address.key or ""} | variables
        return commands.run_text(*arguments, environment=environment({}) | given, folder=tmp_path)

    return run


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_generate_waits_downloads_and_prints_one_document(reelhook: Run, campaign: str, tmp_path: Path) -> None:
    done = reelhook("generate", "image", "--campaign", campaign, "--prompt", "a red kite", "--out", "results", "--json")
    made = document(done)
    assert made["status"] == "completed" and done.stderr == ""
    stored = (tmp_path / made["file"]).read_bytes()
    assert hashlib.sha256(stored).hexdigest() == made["sha256"] and len(stored) == made["bytes"]
    assert [file.name for file in (tmp_path / "results").iterdir()] == [Path(made["file"]).name]


def test_progress_is_lines_on_standard_error_when_it_is_no_terminal(reelhook: Run, campaign: str) -> None:
    done = reelhook("generate", "image", "--campaign", campaign, "--prompt", "a blue kite", "--wait")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1 and done.stdout.startswith("http")
    assert done.stderr.splitlines()[-1].endswith(": completed")


def test_copies_come_as_a_list_and_are_found_again_by_campaign(reelhook: Run, campaign: str) -> None:
    asked = document(
        reelhook(
            "generate",
            "image",
            "--campaign",
            campaign,
            "--prompt",
            "kites",
            "--copies",
            2,
            "--metadata",
            "n=1",
            "--json",
        )
    )
    ids = [each["id"] for each in asked["items"]]
    watched = document(reelhook("watch", *ids, "--json"))
    assert [(each["id"], each["status"]) for each in watched["items"]] == [(id, "completed") for id in ids]
    listed = document(reelhook("list", "--campaign", campaign, "--status", "completed", "--json"))
    assert set(ids) <= {each["id"] for each in listed["items"]}
    shown = document(reelhook("show", ids[0], "--json"))
    assert shown["metadata"] == {"n": "1"}
    table = reelhook("list", "--campaign", campaign).stdout
    assert all(id in table for id in ids)


def watching(stage: Stage, *arguments: str) -> subprocess.Popen[str]:
    """`reelhook watch` without an end, once it listens."""
    given = {"REELHOOK_URL": stage.address.url, "REELHOOK_API_KEY": stage.address.key or ""}
    until(lambda: streams(stage) == 0)  # the service notices a while later that the one before has gone
    watching = subprocess.Popen(
        [sys.executable, "-m", "backend.cli", "watch", *arguments],
        env=environment({}) | given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: streams(stage) == 1)
    return watching


def streams(stage: Stage) -> float:
    with urllib.request.urlopen(f"{stage.address.url}/metrics", timeout=10) as answer:
        found = re.search(r"^reelhook_streams (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_without_ids_prints_a_line_for_every_event_until_it_is_stopped(
    number: signal.Signals, stage: Stage, reelhook: Run, campaign: str
) -> None:
    watch = watching(stage)
    made = document(reelhook("generate", "image", "--campaign", campaign, "--prompt", "a kite", "--wait", "--json"))
    assert watch.stdout is not None
    lines = [watch.stdout.readline()]
    while "generation.completed" not in lines[-1]:
        lines.append(watch.stdout.readline())
    watch.send_signal(number)
    _, complaint = watch.communicate(timeout=30)
    assert (watch.returncode, complaint) == (0, "")
    ours = [line.split() for line in lines if made["id"] in line]
    assert [words[1:4] for words in ours if words[1] != "generation.progress"] == [
        ["generation.processing", "image", made["id"]],
        ["generation.completed", "image", made["id"]],
    ]


def test_watch_of_a_campaign_is_one_document_when_it_is_stopped(stage: Stage, reelhook: Run, campaign: str) -> None:
    watch = watching(stage, "--campaign", campaign, "--json")
    made = document(reelhook("generate", "image", "--campaign", campaign, "--prompt", "a kite", "--wait", "--json"))
    assert watch.stdout is not None
    lines = [watch.stdout.readline(), watch.stdout.readline()]
    while "generation.completed" not in lines[-1]:
        lines.append(watch.stdout.readline())
    watch.send_signal(signal.SIGTERM)
    rest, complaint = watch.communicate(timeout=30)
    assert (watch.returncode, complaint) == (0, "")
    events = json.loads("".join(lines) + rest)["items"]
    told = [each["type"] for each in events if each["id"] and each["data"]["id"] == made["id"]]
    assert told == ["generation.processing", "generation.completed"]


def test_watch_whose_reader_has_gone_ends_without_a_word(stage: Stage, reelhook: Run, campaign: str) -> None:
    watch = watching(stage)
    assert watch.stdout is not None and watch.stderr is not None
    watch.stdout.close()
    document(reelhook("generate", "image", "--campaign", campaign, "--prompt", "a kite", "--wait", "--json"))
    assert watch.wait(30) == 0 and watch.stderr.read() == ""
    watch.stderr.close()


def test_a_local_file_is_uploaded_before_it_is_used(reelhook: Run, campaign: str, tmp_path: Path) -> None:
    Image.new("RGB", (640, 360), "teal").save(tmp_path / "start.png")
    made = document(
        reelhook(
            "generate",
            "video",
            "--campaign",
            campaign,
            "--asset",
            "start.png",
            "--prompt",
            "wind",
            "--out",
            ".",
            "--json",
        )
    )
    assert made["status"] == "completed" and made["kind"] == "video"
    assert made["source"]["asset_id"]
    assert (tmp_path / made["file"]).suffix == ".mp4"


def test_what_is_finished_can_neither_be_canceled_nor_retried(reelhook: Run, campaign: str) -> None:
    made = document(reelhook("generate", "image", "--campaign", campaign, "--prompt", "done", "--wait", "--json"))
    for command in ("cancel", "retry"):
        done = reelhook(command, made["id"], "--json")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("reelhook: ") and len(done.stderr.splitlines()) == 1


def test_a_canceled_generation_can_be_retried(reelhook: Run, campaign: str) -> None:
    asked = document(reelhook("generate", "video", "--campaign", campaign, "--prompt", "waves", "--json"))
    document(reelhook("cancel", asked["id"], "--json"))
    ended = reelhook("watch", asked["id"], "--json")
    assert ended.returncode == 1 and json.loads(ended.stdout)["items"][0]["status"] == "canceled"
    again = document(reelhook("retry", asked["id"], "--json"))
    assert again["retry_of"] == asked["id"]
    document(reelhook("cancel", again["id"], "--json"))


def test_one_that_fails_is_exit_status_1_and_its_reason(reelhook: Run, stage: Stage, campaign: str) -> None:
    fault = {
        "kind": "failed",
        "error": "The prompt was flagged as sensitive (E005).",
        "match": {"prompt_contains": "doomed"},
    }
    emulator = stage.settings["REPLICATE_BASE_URL"].removesuffix("/v1")
    request = urllib.request.Request(
        f"{emulator}/emulator/faults", json.dumps({"faults": [fault]}).encode(), method="PUT"
    )
    urllib.request.urlopen(request, timeout=10).close()
    done = reelhook("generate", "image", "--campaign", campaign, "--prompt", "doomed", "--out", "results", "--json")
    made = json.loads(done.stdout)
    assert (done.returncode, made["status"], made["file"]) == (1, "failed", None)
    assert done.stderr == f"{made['id']} failed: {made['error']['message']}\n"


def test_a_refusal_is_one_sentence_that_names_the_field(reelhook: Run, campaign: str) -> None:
    done = reelhook("generate", "video", "--campaign", campaign, "--prompt", "p", "--duration", 7, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "duration" in done.stderr and len(done.stderr.splitlines()) == 1


def test_without_a_key_the_command_says_where_it_belongs(reelhook: Run) -> None:
    done = reelhook("list", REELHOOK_API_KEY="")
    assert done.returncode == 1 and "REELHOOK_API_KEY is not set" in done.stderr


def test_an_unknown_id_is_a_failure_in_words(reelhook: Run) -> None:
    done = reelhook("show", "01900000-0000-7000-8000-000000000000", "--json")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr


def test_a_revoked_key_opens_nothing_from_that_moment_on(stage: Stage, reelhook: Run) -> None:
    made = json.loads(answer_of(["keys", "create", "--name", "short-lived", "--json"], stage.folder, stage.settings))
    assert reelhook("list", REELHOOK_API_KEY=made["key"]).returncode == 0
    assert made["id"] in answer_of(["keys", "list"], stage.folder, stage.settings)
    assert made["key"] not in answer_of(["keys", "list", "--json"], stage.folder, stage.settings)
    answer_of(["keys", "revoke", made["id"]], stage.folder, stage.settings)
    assert reelhook("list", REELHOOK_API_KEY=made["key"]).returncode == 1
