"""A service is not stopped by whoever should read its log: real processes before pipes, files and nothing at all."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from webserving import ask, until

from backend.cli.processes import COMMAND, environment, free_port
from backend.logs.outlet import MOST_LINES, Outlet

MANY = MOST_LINES + 1500
GRACE_S = 20.0

pytestmark = [pytest.mark.story, pytest.mark.hazard(60), pytest.mark.timeout(240)]


@dataclass
class Pipe:
    """A pipe whose reading end is ours."""

    read: int
    write: int

    def fill(self) -> None:
        """Leave room for nothing."""
        flags = fcntl.fcntl(self.write, fcntl.F_GETFL)
        fcntl.fcntl(self.write, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        for size in (1 << 16, 1):
            with suppress(BlockingIOError):
                while os.write(self.write, b"\n" * size):
                    pass
        fcntl.fcntl(self.write, fcntl.F_SETFL, flags)

    def drain(self, into: list[str]) -> None:
        """Take every line until the last writer has closed it."""
        self.close("write")
        with os.fdopen(self.read, encoding="utf-8", closefd=False) as file:
            into.extend(line.rstrip("\n") for line in file if line != "\n")

    def close(self, *ends: str) -> None:
        for end in ends or ("read", "write"):
            if getattr(self, end) >= 0:
                os.close(getattr(self, end))
                setattr(self, end, -1)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe(*os.pipe())
    yield made
    made.close()


@dataclass
class Running:
    """A command of ours as a process."""

    process: subprocess.Popen[bytes]
    port: int

    def requests(self, count: int) -> int:
        """How many of these small requests were answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with closing(connection):
            answered = 0
            for _ in range(count):
                connection.request("GET", "/healthz")
                answered += connection.getresponse().read() == b'{"status":"ok"}'
        return answered

    def dropped(self) -> int:
        lines = ask(self.port, "GET", "/metrics").body.decode().splitlines()
        return next(
            int(float(line.split()[1])) for line in lines if line.startswith("reelhook_log_lines_dropped_total")
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GRACE_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    made: list[subprocess.Popen[bytes]] = []

    def begin(*words: str, out: Any, err: Any = subprocess.STDOUT, shell: str = "") -> Running:
        port = free_port()
        settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/r.db", "STORAGE_URL": f"file:{tmp_path}/m"}
        command = [*COMMAND, *words, *(["--port", str(port)] if words[0] != "worker" else [])]
        if shell:
            command = ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *command]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment({**settings, "MIN_FREE_MB": "0"}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        made.append(process)
        return Running(process, port)

    yield begin
    for process in made:
        if process.poll() is None:
            process.kill()
        process.wait()


def answers(running: Running) -> bool:
    with suppress(OSError):
        return ask(running.port, "GET", "/healthz").status == 200
    return False


def test_a_pipe_that_nobody_reads_stops_neither_the_answers_nor_the_end(start: Any, pipe: Pipe) -> None:
    pipe.fill()  # even the line that says "ready" finds no room
    service = start("serve", out=pipe.write)
    until(lambda: answers(service), 60)
    assert service.requests(MANY) == MANY
    assert service.dropped() > 0
    assert service.stop() == 0


def test_what_was_lost_is_said_in_its_place_as_soon_as_there_is_room(start: Any, pipe: Pipe) -> None:
    service = start("serve", out=pipe.write)
    until(lambda: answers(service), 60)
    service.requests(MANY)
    lost = service.dropped()
    got: list[str] = []
    reader = threading.Thread(target=pipe.drain, args=(got,))
    reader.start()
    until(lambda: any("log_lines_dropped" in line for line in got[-500:]), 30)
    service.requests(1)
    assert service.stop() == 0
    reader.join(20)
    assert got[0].startswith("reelhook is ready at"), "two names for one pipe keep the order"
    lines = [json.loads(line) for line in got[1:]]
    told = [number for number, line in enumerate(lines) if line["event"] == "log_lines_dropped"]
    assert sum(lines[number]["lines"] for number in told) >= lost > 0
    times = [line["at"] for line in lines if line["event"] == "request"]
    assert times == sorted(times)
    assert lines[told[0]]["lines"] >= lost, "one line for all of them"
    assert lines[told[0] + 1]["event"] == "request"


@pytest.mark.parametrize("shell", [">/dev/full 2>&1", ">&- 2>&-", "2>&-"])
def test_a_full_disk_under_the_log_and_a_log_that_is_closed_hurt_nobody(start: Any, shell: str, tmp_path: Path) -> None:
    service = start("serve", out=subprocess.DEVNULL, shell=shell)
    until(lambda: answers(service), 60)
    assert service.requests(100) == 100
    if "full" in shell:
        until(lambda: service.dropped() >= 100)
    assert service.stop() == 0
    with closing(sqlite3.connect(tmp_path / "r.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_reader_that_went_away_hurts_nobody(start: Any, pipe: Pipe) -> None:
    service = start("serve", out=pipe.write)
    until(lambda: answers(service), 60)
    pipe.close()
    assert service.requests(100) == 100
    until(lambda: service.dropped() >= 100)
    assert service.stop() == 0


def test_the_emulator_and_the_worker_end_in_time_before_a_full_pipe(start: Any, pipe: Pipe, tmp_path: Path) -> None:
    pipe.fill()
    emulator = start("emulator", out=pipe.write)
    until(lambda: answers(emulator), 60)
    assert emulator.stop() in (0, -signal.SIGTERM)
    worker = start("worker", out=pipe.write)
    until(lambda: works(tmp_path / "r.db"), 60)
    assert worker.stop() == 0


def works(database: Path) -> bool:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT id FROM workers").fetchall())
    return False


def run(text: str, out: int) -> subprocess.Popen[bytes]:
    program = "import logging, sys, threading, warnings\nfrom backend.logs import output\n" + textwrap.dedent(text)
    return subprocess.Popen([sys.executable, "-c", program], stdout=out, stderr=out)


def test_all_that_a_process_says_at_its_end_is_read_in_its_order(pipe: Pipe) -> None:
    process = run(
        """
        output.take_over()
        for number in range(1500):
            print("line", number, file=(sys.stdout, sys.stderr)[number % 2])
        warnings.warn("mind the step")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        print("no end", end="", flush=True)
        print()
        raise RuntimeError("the last word")
        """,
        pipe.write,
    )
    lines: list[str] = []
    pipe.drain(lines)
    assert process.wait(20) == 1
    assert lines[:1500] == [f"line {number}" for number in range(1500)]
    rest = "\n".join(lines[1500:])
    assert "mind the step" in rest and "ZeroDivisionError" in rest and "\nno end\n" in rest
    assert lines[-1] == "RuntimeError: the last word"


def test_a_crash_before_a_full_pipe_is_still_an_end(pipe: Pipe) -> None:
    pipe.fill()
    process = run("output.take_over()\nprint('x' * 5_000_000)\nraise RuntimeError('unread')", pipe.write)
    assert process.wait(20) == 1


def test_a_pipe_that_does_not_wait_itself_is_waited_for(pipe: Pipe) -> None:
    """As a parent made it that reads by events: writing there fails instead of waiting."""
    os.set_blocking(pipe.write, False)
    outlet = Outlet(pipe.write)
    for number in range(1000):
        outlet.put(f"{number:0199d}\n".encode())
    time.sleep(0.1)  # in which the pipe is full and nobody reads it
    got: list[str] = []
    reader = threading.Thread(target=lambda: [got.append(line) for line in read_lines(pipe.read, 1000)])
    reader.start()
    reader.join(20)
    assert [int(line) for line in got] == list(range(1000))
    assert outlet.dropped == 0


def read_lines(descriptor: int, count: int) -> list[str]:
    got = b""
    while got.count(b"\n") < count:
        got += os.read(descriptor, 65536)
    return got.decode().splitlines()


def test_a_line_that_a_full_disk_cut_off_spoils_no_other(tmp_path: Path) -> None:
    room: list[int] = [4, 0, 10_000]
    written = b""

    def write(_: int, text: memoryview) -> int:
        nonlocal written
        allowed = min(room.pop(0), len(text)) if len(room) > 1 else len(text)
        if not allowed:
            raise OSError(28, "No space left on device")
        written += bytes(text[:allowed])
        return allowed

    outlet = Outlet(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.logs.outlet.os.write", write)
        outlet.put(b"first line\n")
        until(lambda: outlet.dropped == 1)
        outlet.put(b"second line\n")
        until(lambda: written.endswith(b"second line\n"))
    half, word, whole = written.decode().splitlines()
    assert (half, json.loads(word)["lines"], whole) == ("firs", 1, "second line")
