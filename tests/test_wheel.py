"""What is published works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: object, cwd: Path, **environment: str) -> str:
    """The output of a command that must succeed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the locked build tools that scripts/setup installed."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    return folder / run(sys.executable, "-c", build, cwd=ROOT).splitlines()[-1]


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`reelhook` installed from the wheel into a venv that sees our dependencies, but not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", symlinks=True)
    scheme = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # A line of a .pth file is a plain entry of sys.path: the checkout's own .pth in there is not followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    script = folder / "venv/bin/reelhook"
    script.write_text(f"#!{folder}/venv/bin/python\nfrom backend.cli import main\nmain()\n")
    script.chmod(0o755)
    return script


def test_the_wheel_holds_what_the_program_reads_at_run_time(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {"backend/schema.sql", "backend/db/migrations/0001_initial.sql", "backend/providers/replicate/models.toml"}
    wanted |= {"reelhook/client.py", "reelhook/py.typed"}
    assert wanted <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "scripts/", "data/", "demo/"))]
    assert [name for name in names if name.endswith("dist-info/licenses/LICENSE")]


def test_the_installed_command_is_not_the_checkout(command: Path, tmp_path: Path) -> None:
    where = run(command.parent / "python", "-c", "import backend; print(backend.__file__)", cwd=tmp_path)
    assert str(ROOT) not in where


def test_the_python_client_comes_with_it_and_brings_nothing_of_the_service(command: Path, tmp_path: Path) -> None:
    program = "import sys, reelhook; reelhook.Client(); print(reelhook.__file__, *sys.modules)"
    where, *loaded = run(command.parent / "python", "-c", program, cwd=tmp_path).split()
    assert str(ROOT) not in where
    assert not {"backend", "starlette", "pydantic"} & set(loaded)


def test_the_installed_command_helps_in_an_empty_folder(command: Path, tmp_path: Path) -> None:
    assert "generate" in run(command, "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_makes_and_checks_a_database(command: Path, tmp_path: Path) -> None:
    database = {"DATABASE_URL": "sqlite:///new/reelhook.db"}
    run(command, "migrate", cwd=tmp_path, **database)
    assert (tmp_path / "new/reelhook.db").exists()
    assert "current schema" in run(command, "migrate", "--check", cwd=tmp_path, **database)
