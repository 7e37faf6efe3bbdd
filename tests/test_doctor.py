"""The doctor explains whatever it finds: it never traces back, never hangs, and exits 1 when something would fail."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from firewall import answer, before
from test_settings import reelhook

LONGEST_S = 60.0  # 25 of its own, and a machine that is shared


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:

        def take() -> None:
            with suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    for each in held:
        each.close()


def doctor(cwd: Path, **settings: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Its exit status, and state and advice by name."""
    began = time.monotonic()
    done = reelhook("doctor", "--json", cwd=cwd, **settings)
    assert time.monotonic() - began < LONGEST_S
    assert "Traceback" not in done.stderr, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is (done.returncode == 0)
    return done.returncode, {check["name"]: (check["state"], check["advice"]) for check in report["checks"]}


@pytest.mark.story  # ten seconds of patience are the point
@pytest.mark.hazard(59)
def test_everything_that_hangs_at_once_is_told_and_not_waited_for(tmp_path: Path) -> None:
    with silent() as port:
        status, found = doctor(
            tmp_path,
            REPLICATE_API_KEY="r8_x",
            REPLICATE_BASE_URL=f"http://127.0.0.1:{port}/v1",
            REDIS_URL=f"redis://127.0.0.1:{port}/0",
            BASE_URL=f"http://127.0.0.1:{port}",
            NGROK_URL="https://192.0.2.1",
        )
    assert status == 1 and found["REPLICATE_BASE_URL"][0] == "fail"
    assert found["REDIS_URL"][0] == "warn" and found["NGROK_URL"][0] in ("warn", "fail")
    assert found["DATABASE_URL"][0] == "ok"


@pytest.mark.hazard(59)
def test_every_setting_that_is_junk_is_explained_by_name(tmp_path: Path) -> None:
    junk = {
        "REPLICATE_API_KEY": "r8_se\u200bcret",
        "BASE_URL": "http://a b",
        "NGROK_URL": "http://h:99999",
        "REDIS_URL": "redis://:secret@h?db=x",
        "MAX_IN_FLIGHT": "nan",
        "TRUSTED_PROXIES": "10.0.0.0/64",
        "VIDEO_RATE_LIMIT": "0/minute",
        "STORAGE_URL": "file://[",
    }
    status, found = doctor(tmp_path, **junk)
    assert status == 1 and {name for name, (state, _) in found.items() if state == "fail"} == set(junk)
    assert all(advice and "cret" not in advice for _, advice in found.values())


@pytest.mark.hazard(59)
@pytest.mark.parametrize(
    "what", ["folder", "notes", pytest.param("locked", marks=pytest.mark.story), "empty folder above", "device"]
)
def test_a_database_that_is_none_or_held_by_somebody_is_told(what: str, tmp_path: Path) -> None:
    file = tmp_path / "some.db"
    url = f"sqlite:///{file}"
    with closing(sqlite3.connect(":memory:")) as holder:
        match what:
            case "folder":
                file.mkdir()
            case "notes":
                file.write_text("These are notes. " * 500)
            case "locked":
                assert reelhook("migrate", cwd=tmp_path, DATABASE_URL=url).returncode == 0
                holder = sqlite3.connect(file, isolation_level=None)
                holder.execute("PRAGMA locking_mode = EXCLUSIVE")
                holder.execute("BEGIN EXCLUSIVE")
            case "empty folder above":
                (tmp_path / "plain").write_text("a file")
                url = f"sqlite:///{tmp_path}/plain/some.db"
            case "device":
                url = "sqlite:////dev/null"
        status, found = doctor(tmp_path, DATABASE_URL=url)
        holder.close()
    assert status == 1 and found["DATABASE_URL"][0] == "fail" and found["DATABASE_URL"][1]
    assert found["STORAGE_URL"][0] == "ok"


@pytest.mark.parametrize("url", ["file:///proc/media", "file:///dev/null/media", "file:plain", "file:" + "x" * 300])
def test_a_storage_where_nothing_can_be_kept_is_told(url: str, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    status, found = doctor(tmp_path, STORAGE_URL=url)
    assert status == 1 and found["STORAGE_URL"][0] == "fail" and "nothing can be stored" in found["STORAGE_URL"][1]


@pytest.mark.parametrize(
    "said",
    [
        answer(200, "not JSON", date="yesterday"),
        answer(200, {}, date="Fri, 31 Dec 9999 23:59:59 GMT"),
        answer(599, None),
        b"nonsense\r\n\r\n",
        b"",
    ],
    ids=["junk", "a clock of another time", "599", "no HTTP", "nothing"],
)
def test_a_provider_that_answers_nonsense_is_told(said: bytes, tmp_path: Path) -> None:
    with before("http://127.0.0.1:9") as wall:
        wall.rules.append(lambda method, path, body: said)
        _, found = doctor(tmp_path, REPLICATE_API_KEY="r8_x", REPLICATE_BASE_URL=f"{wall.origin}/v1")
    assert found["REPLICATE_API_KEY"][1] and found["DATABASE_URL"][0] == "ok"


@pytest.mark.parametrize("content", ["A=1\n".encode("utf-16"), b"\xe9=1\n", b"A\0=1\n", b"some words here\n"], ids=repr)
def test_a_file_of_settings_that_cannot_be_read_is_told_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(content)
    status, found = doctor(tmp_path)
    assert status == 1 and list(found) == [".env"] and found[".env"][0] == "fail"
