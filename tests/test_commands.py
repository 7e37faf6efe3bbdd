"""A command that is forked from a process that has imported the product is like one that was started anew."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import commands
import pytest
from processes import children, is_there
from waiting import until

from backend.cli.processes import COMMAND, environment


@pytest.mark.parametrize("words", [["--version"], ["nothing-like-this"], ["migrate", "--check"], ["keys", "list"]])
def test_it_says_and_ends_as_one_that_was_started_anew(tmp_path: Path, words: list[str]) -> None:
    given = environment({"DATABASE_URL": "sqlite:///a.db", "STORAGE_URL": "file:media"})
    anew = subprocess.run(
        [*COMMAND, *words], cwd=tmp_path, env=given, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    forked = commands.run_text(*words, environment=given, folder=tmp_path)
    assert (forked.returncode, forked.stdout, forked.stderr) == (anew.returncode, anew.stdout, anew.stderr)


def test_it_has_files_an_environment_and_a_session_of_its_own_and_can_be_killed(tmp_path: Path) -> None:
    given = environment({"DATABASE_URL": f"sqlite:///{tmp_path}/a.db", "STORAGE_URL": f"file:{tmp_path}/media"})
    before = children(os.getpid())
    with (tmp_path / "log").open("wb") as log:
        process = commands.spawn("serve", "--port", "0", environment=given, stdout=log, folder=tmp_path)
    until(lambda: "is ready at" in (tmp_path / "log").read_text() or process.poll() is not None)
    proc = Path(f"/proc/{process.pid}")
    assert (proc / "cwd").readlink() == tmp_path and (proc / "fd/1").readlink() == tmp_path / "log"
    assert os.getsid(process.pid) == process.pid and children(os.getpid()) == before
    assert process.poll() is None
    process.kill()
    assert process.wait(10) == -signal.SIGKILL and not is_there(process.pid)


def test_one_that_does_not_end_is_given_up_and_killed(tmp_path: Path) -> None:
    given = environment({"DATABASE_URL": f"sqlite:///{tmp_path}/a.db", "STORAGE_URL": f"file:{tmp_path}/media"})
    with pytest.raises(subprocess.TimeoutExpired):
        commands.run("serve", "--port", "0", environment=given, folder=tmp_path, timeout=0.5)
