"""The scripts work on a fresh machine: any folder, any order, two at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
NEEDED = ("scripts", "backend", "pyproject.toml", "README.md", "LICENSE", "schema.sql", *LOCKS)


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / lock).read_text(), re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", each, maxsplit=1)[0].lower() for each in requirements}


def test_every_dependency_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert names(project["project"]["dependencies"]) <= pins("requirements.lock") <= pins("requirements-dev.lock")
    assert names(project["dependency-groups"]["dev"]) <= pins("requirements-dev.lock")
    assert {*names(project["build-system"]["requires"]), "editables"} <= pins("requirements-build.lock")
    for lock in LOCKS:
        packages = re.split(r"^(?=[a-z0-9.-]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in package for package in packages)


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_an_index(lock: str) -> None:
    assert not re.search(r"https?://|file:|index|find-links|@", (ROOT / lock).read_text())


def test_the_scripts_are_short_and_can_be_run() -> None:
    for script in (ROOT / "scripts").iterdir():
        if script.is_file():
            assert len(script.read_text().splitlines()) <= 20, script
            assert script.name == "install" or os.access(script, os.X_OK), script


def test_every_test_is_run_by_one_of_two_commands_and_ci_calls_both() -> None:
    test, stories = ((ROOT / "scripts" / name).read_text().splitlines()[1:] for name in ("test", "stories"))
    assert [line.replace('"not story"', "story") for line in test[1:]] == stories[1:] != test[1:]
    ci = (ROOT / ".ci/run").read_text()
    for name in ("test", "stories"):
        assert re.search(rf"^timeout .* scripts/{name}$", ci, re.MULTILINE), "once, whatever comes of it"
    for page in ("README.md", "docs/architecture.md"):
        assert all(f"`scripts/{name}`" in (ROOT / page).read_text() for name in ("test", "stories")), page


def test_a_python_that_is_too_old_gets_a_clear_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts/find-python"],
        env={"PATH": os.environ["PATH"], "PYTHON": str(old)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr and str(old) in done.stderr


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status and what it said."""
    said = process.communicate(timeout=280)[1]
    return process.returncode, said


def reached_the_index(output: str) -> bool:
    return not re.search(
        r"connection|resolve|network|timed out|No matching distribution|not found in", output, re.IGNORECASE
    )


@pytest.mark.story
@pytest.mark.timeout(300)
def test_a_fresh_checkout_is_set_up_once_by_two_at_once_and_again_after_it_moved(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    environment = os.environ | {"HOME": str(tmp_path / "empty")}
    (tmp_path / "empty").mkdir()

    def start(where: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [where / "scripts/setup"],
            cwd="/",
            env=environment,
            text=True,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    both = [start(checkout), start(checkout)]
    codes, said = zip(*map(finish, both), strict=True)
    if any(codes) and not reached_the_index("".join(said)):
        assert os.environ.get("REQUIRE_SERVICES") != "1", said
        pytest.skip("the package index cannot be reached")
    assert codes == (0, 0), said
    assert sum("Setting up" in words for words in said) == 1

    began = time.monotonic()
    assert finish(start(checkout)) == (0, "")
    assert time.monotonic() - began < 1

    moved = checkout.rename(tmp_path / "moved")
    assert finish(start(moved))[0] == 0
    where = subprocess.run(
        [moved / ".venv/bin/python", "-c", "import backend; print(backend.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.strip() == str(moved / "backend/__init__.py")
