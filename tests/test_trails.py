"""A test that fails shows what its services logged and what became of their rows, and no more than one can read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import trails

HOME = Path(__file__).parent
FAILING = """
from api_service import running
from gateway import gateway

def test_in_a_thread(bench):
    bench.finished = False
    bench.ask(prompt="a fox")
    bench.submit_next()
    assert not "a reason"

def test_as_a_process(tmp_path, provider):
    with gateway(tmp_path, provider, forked=True) as service:
        service.ended(service.ask()["id"], "failed")

def test_of_the_api(tmp_path):
    with running(tmp_path) as service:
        service.submitted(service.generate(service.tenant())["id"])
        assert not "a reason"

def test_well():
    pass

def test_without_a_service():
    assert not "a reason"
"""
SHOWN = {
    "in_a_thread": ("status=processing", "provider_id=", "path=/api/v2/generate/image"),
    "as_a_process": ("status=completed", "events: type=generation.completed", "deliveries: webhook_id=", "is ready at"),
    "of_the_api": ("status=processing", "events: type=generation.processing", "path=/api/v2/generate/image"),
}


def test_a_test_that_fails_shows_the_log_and_the_rows_of_its_service(tmp_path: Path) -> None:
    (tmp_path / "test_fails.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", str(HOME.parent / "pyproject.toml")]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{HOME}{os.pathsep}{HOME.parent}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1 and "4 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    told = dict(re.findall(r"^_+ test_(\w+) _+$(.*?)(?=^_+ test_|^=+ short)", done.stdout, re.MULTILINE | re.DOTALL))
    for test, words in SHOWN.items():
        assert told[test].count("The last rows of ") == 1
        assert [each for each in words if each not in told[test]] == [], told[test]
    assert "The last rows of " not in told["without_a_service"]


def test_what_is_shown_is_bounded_and_of_this_test_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails, "_LEFT", {})
    with trails.left(tmp_path / "none.db", lambda: "\n".join(map(str, range(10_000)))):
        trails.forget()
        (_, log), (_, rows) = trails.sections()
        assert log.splitlines() == [str(number) for number in range(10_000 - trails.MOST_LINES, 10_000)]
        assert rows == "they cannot be read: unable to open database file"
    assert trails.sections(), "the test that fails may have left the block by its error"
    trails.forget()
    assert trails.sections() == []


def test_a_log_in_this_process_keeps_its_last_lines() -> None:
    kept = trails.Kept()
    for number in range(trails.MOST_LINES + 5):
        with pytest.raises(structlog.DropEvent):
            kept.keep(None, "info", {"event": "request", "number": number})
    assert str(kept).splitlines()[0] == "info event=request number=5"
