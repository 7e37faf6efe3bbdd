"""The command line where no service is needed."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import commands
import pytest
from typer.main import get_command

from backend.cli.commands import app
from backend.cli.output import size
from backend.cli.processes import COMMAND, Program, environment, free_port
from backend.config import Settings
from backend.config.loading import setting_names
from backend.core.errors import ReelhookError

COMMANDS = {
    "serve": "--host --port --no-worker --dev --tunnel",
    "worker": "--kind",
    "emulator": "--port --faults",
    "demo": "--open",
    "migrate": "--check",
    "doctor": "--json",
    "backup": "--no-media --json",
    "restore": "--resume --json",
    "keys": "",
    "generate": "",
    "list": "--json",
    "show": "--json",
    "watch": "--campaign --client --out --json",
    "retry": "--json",
    "cancel": "--json",
    "audit": "--action --client --by --object --after --before --limit --cursor --json --url --key",
    "mcp": "--campaign",
}


def reelhook(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """One command with these settings and no others."""
    return commands.run_text(*arguments, environment=environment(settings), folder=cwd)


def test_every_promised_command_and_option_is_there() -> None:
    commands = get_command(app).commands
    assert set(commands) == set(COMMANDS)
    for name, options in COMMANDS.items():
        offered = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(options.split()) <= offered, name
    assert set(commands["keys"].commands) == {"create", "list", "revoke"}
    assert set(commands["generate"].commands) == {"image", "video"}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "backend.cli", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = r"\| +(httpx|starlette|uvicorn|pydantic|av|PIL|asyncpg|sqlite3|bcrypt|limits)$"
    assert re.findall(heavy, done.stderr, re.MULTILINE) == []


def test_help_answers_in_the_blink_of_an_eye(tmp_path: Path) -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], cwd=tmp_path, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # The processor's time and not the clock's: other tests may be running on the same machine.
    assert min(seconds() for _ in range(5)) < 0.6


@pytest.mark.parametrize(
    "arguments",
    [
        ("unheard-of",),
        ("generate", "image", "--campaign", "c"),
        ("generate", "image", "--prompt", "no campaign"),
        ("generate", "image", "--campaign", "c", "--prompt", "p", "--metadata", "no-equals-sign"),
        ("generate", "image", "--campaign", "c", "--asset", "neither-an-id-nor-a-file"),
        ("generate", "video", "--campaign", "c", "--prompt", "p", "--copies", "9"),
        ("worker", "--kind", "sound"),
        ("emulator", "--faults", "not-there.toml"),
        ("watch", "--out", "."),
        ("watch", "--campaign", "a", "--client", "b"),
    ],
)
def test_wrong_usage_is_exit_status_2_and_says_nothing_on_standard_output(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = reelhook(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_a_service_that_is_not_there_is_one_clear_sentence(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    done = reelhook("list", "--json", "--url", address, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    advice = "start one with `reelhook serve`, or set REELHOOK_URL"
    assert done.stderr == f"reelhook: no service answers at {address}: {advice}\n"


def test_migrate_makes_a_database_once_and_check_says_what_is_missing(tmp_path: Path) -> None:
    settings = {"DATABASE_URL": "sqlite:///deep/down/reelhook.db"}
    missing = reelhook("migrate", "--check", cwd=tmp_path, **settings)
    assert missing.returncode == 1 and "schema.sql" in missing.stdout
    assert not (tmp_path / "deep").exists()
    assert reelhook("migrate", cwd=tmp_path, **settings).returncode == 0
    assert reelhook("migrate", cwd=tmp_path, **settings).returncode == 0
    assert reelhook("migrate", "--check", cwd=tmp_path, **settings).returncode == 0


def test_migrate_refuses_what_is_not_our_database(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("These are notes, not a database." * 100)
    done = reelhook("migrate", cwd=tmp_path, DATABASE_URL="sqlite:///notes.db")
    assert done.returncode == 1
    assert done.stderr.startswith("reelhook: ") and "Traceback" not in done.stderr


def test_a_wrong_setting_is_named_and_its_value_is_not_shown(tmp_path: Path) -> None:
    done = reelhook("migrate", cwd=tmp_path, VIDEO_RATE_LIMIT="sk_this-is-a-secret-in-the-wrong-place")
    assert done.returncode == 1
    assert "VIDEO_RATE_LIMIT" in done.stderr and "sk_this" not in done.stderr


def test_the_doctor_lists_every_setting_and_masks_secrets(tmp_path: Path) -> None:
    done = reelhook(
        "doctor",
        "--json",
        cwd=tmp_path,
        DATABASE_URL="sqlite:///reelhook.db",
        STORAGE_URL="file:media",
        DATA_KEY="very-secret-indeed-very-secret-indeed",
    )
    report = json.loads(done.stdout)
    names = [check["name"] for check in report["checks"]]
    assert done.returncode == 0 and report["ok"] is True
    assert {each[0] for each in setting_names().values()} <= set(names)
    assert len(names) == len(set(names))
    assert "very-secret" not in done.stdout + done.stderr
    assert not (tmp_path / "reelhook.db").exists()


@pytest.mark.parametrize(
    ("settings", "failing"),
    [
        ({"DATABASE_URL": "mysql://nowhere"}, "DATABASE_URL"),
        ({"STORAGE_URL": "ftp://nowhere"}, "STORAGE_URL"),
        ({"REPLICATE_WEBHOOK_SECRET": "whsec_c2hvcnQ="}, "REPLICATE_WEBHOOK_SECRET"),
        (
            {"REPLICATE_API_TOKEN": "r8_x", "REPLICATE_BASE_URL": "http://127.0.0.1:1/v1"},
            "REPLICATE_BASE_URL",
        ),
        ({"AUTH_MODE": "dev", "BASE_URL": "https://reelhook.example.com"}, "AUTH_MODE"),
        ({"IMAGE_RATE_LIMIT": "many"}, "IMAGE_RATE_LIMIT"),
    ],
)
def test_the_doctor_names_what_would_fail(settings: dict[str, str], failing: str, tmp_path: Path) -> None:
    done = reelhook("doctor", "--json", cwd=tmp_path, **settings)
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["ok"] is False
    assert [check["name"] for check in report["checks"] if check["state"] == "fail"] == [failing]


def test_the_doctor_tries_the_key_the_secret_and_the_clock(tmp_path: Path) -> None:
    emulator = Program("emulator", ["emulator", "--port", "0"], tmp_path, {})
    try:
        address = emulator.wait_for(r"(http://\S+/v1)")
        good = reelhook("doctor", "--json", cwd=tmp_path, REPLICATE_BASE_URL=address, REPLICATE_API_TOKEN="r8_emulator")
        bad = reelhook("doctor", "--json", cwd=tmp_path, REPLICATE_BASE_URL=address, REPLICATE_API_TOKEN="r8_wrong")
    finally:
        emulator.stop()
    states = {check["name"]: check["state"] for check in json.loads(good.stdout)["checks"]}
    assert (states["REPLICATE_API_KEY"], states["REPLICATE_WEBHOOK_SECRET"], states["clock"]) == (
        "ok",
        "ok",
        "ok",
    )
    failing = [check["name"] for check in json.loads(bad.stdout)["checks"] if check["state"] == "fail"]
    assert failing == ["REPLICATE_API_KEY"]


def test_a_started_program_sees_only_the_settings_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_API_KEY", "r8_my-real-key")
    monkeypatch.setenv("replicate_api_token", "r8_my-real-key")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///precious.db")
    given = environment({"DATABASE_URL": "sqlite:///demo.db"})
    assert given["DATABASE_URL"] == "sqlite:///demo.db"
    assert "r8_my-real-key" not in given.values()
    assert given["PATH"] == os.environ["PATH"]
    assert len(setting_names()) == len(Settings.model_fields)


def test_a_program_that_dies_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "faults.toml").write_text("this is not TOML")
    program = Program("emulator", ["emulator", "--port", "0", "--faults", "faults.toml"], tmp_path, {})
    with pytest.raises(ReelhookError, match=r"stopped before it was ready; .*emulator\.log ends with"):
        program.wait_for("(never)")
    program.stop()


def test_sizes_are_for_people() -> None:
    assert [size(count) for count in (None, 0, 999, 1_500, 2_345_678, 5_000_000_000_000)] == [
        "",
        "0 B",
        "999 B",
        "1.5 kB",
        "2.35 MB",
        "5e+03 GB",
    ]
