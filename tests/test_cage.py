"""The cage: strangers' files are looked at where they can do no harm, and whatever they do there is an answer."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import hostile_files
import pytest
import pytest_asyncio
from emulating import png
from hostile_files import HOSTILE, ODD_CODECS, odd_codec
from PIL import Image
from processes import children, has_open, is_there, open_files, resident_mb
from test_media import image, sound, video
from waiting import come_true

from backend import media
from backend.core.errors import InvalidMedia, MediaBusy, MediaUnavailable, StorageFull
from backend.media import OUTPUT, Probe, answers, cage, child, places, upload
from backend.media.cage import Cage
from backend.media.inside.videos import CODECS

T = TypeVar("T")
ME, OTHER = upload("client-a"), upload("client-b")
EXTRA_MB = 300
LONG = {  # seconds of work for the machine, each
    "a GIF of large frames",
    "a JPEG of scans",
    "a PNG of 49 megapixels and 16 bits",
    "a WebP of large frames",
    "an APNG of frames within the budget",
}
story = pytest.mark.story
linux = pytest.mark.skipif(sys.platform != "linux", reason="these are Linux's")


@pytest_asyncio.fixture
async def caged() -> AsyncIterator[Cage]:
    made = Cage()
    yield made
    await made.close()
    await come_true(lambda: not children(os.getpid()))


def looking_at(folder: Path) -> list[int]:
    """The processes that have been given a file."""
    return [pid for pid in children(os.getpid()) if has_open(pid, folder)]


async def outcome(work: Coroutine[Any, Any, T]) -> T | str:
    """What it gives, or why not: any other error fails the test."""
    try:
        return await work
    except InvalidMedia as error:
        return error.message


def good(folder: Path, name: str = "good.png") -> Path:
    path = folder / name
    path.write_bytes(png())
    return path


def slow(folder: Path) -> Path:
    """A file that keeps a process busy for as long as it is let."""
    path = folder / "slow.jpg"
    hostile_files.many_scans(path)
    return path


@pytest.mark.hazard(54)
@pytest.mark.parametrize("name", [pytest.param(name, marks=story) if name in LONG else name for name in HOSTILE])
async def test_any_file_at_all_costs_little_memory_and_time_and_holds_nobody_up(
    caged: Cage, tmp_path: Path, name: str
) -> None:
    path, target = tmp_path / "file", tmp_path / "poster"
    HOSTILE[name](path)
    own_mb, most_mb, lag_s, began = resident_mb(os.getpid()), 0.0, 0.0, time.monotonic()
    work = asyncio.create_task(outcome(caged.inspect(path, target, place=ME)))
    while not work.done():
        most_mb = max(most_mb, resident_mb(os.getpid(), *children(os.getpid())))
        asked = time.monotonic()
        await asyncio.sleep(0.005)  # between two measurements
        lag_s = max(lag_s, time.monotonic() - asked)
    took_s = time.monotonic() - began
    assert isinstance(work.result(), Probe | str)
    assert most_mb - own_mb < EXTRA_MB and took_s < 20, (work.result(), most_mb - own_mb, took_s)
    assert lag_s < 0.5, lag_s
    assert target.exists() == isinstance(work.result(), Probe) or "MP3" in name
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320


@pytest.mark.hazard(54)
@pytest.mark.parametrize(("codec", "container", "pixels"), ODD_CODECS)
async def test_a_codec_that_is_not_taken_is_never_decoded(
    caged: Cage, tmp_path: Path, codec: str, container: str, pixels: str
) -> None:
    path = tmp_path / "odd"
    odd_codec(path, codec, container, pixels)
    with pytest.raises(InvalidMedia, match="codec"):
        await caged.probe(path, place=ME)


def test_the_codecs_that_are_taken_are_the_usual_ones() -> None:
    taken = {name for name in CODECS if not name.startswith("pcm_")}
    assert taken <= {
        *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "prores", "mjpeg"),
        *("aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "flac"),
    }


@pytest.mark.hazard(54)
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "mp4", "webm", "mp3", "wav"])
async def test_a_file_changed_at_random_is_read_or_refused_and_the_next_one_is_not_harmed(
    caged: Cage, tmp_path: Path, kind: str
) -> None:
    whole, path, chance = tmp_path / "whole", tmp_path / "bent", random.Random(kind)
    if kind in ("mp4", "webm"):
        video(whole, frames=6, kind=kind, size=(64, 64))
    elif kind in ("mp3", "wav"):
        sound(whole, kind)
    else:
        image(whole, kind)
    content, truth = whole.read_bytes(), await caged.probe(whole, place=ME)
    for number in range(8):
        bent = bytearray(content if number % 2 else content[: chance.randrange(20, len(content))])
        for _ in range(chance.randint(1, 30)):
            bent[chance.randrange(min(12, len(bent) - 1), len(bent))] = chance.randrange(256)
        path.write_bytes(bent)
        found = await outcome(caged.inspect(path, tmp_path / "poster", place=ME))
        assert isinstance(found, Probe) or str(tmp_path) not in found
        assert await caged.probe(whole, place=ME) == truth


@linux
@pytest.mark.hazard(54)
async def test_the_process_has_no_environment_no_network_and_nothing_of_ours(
    caged: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_secret")
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "open").open("wb") as ours:
        os.set_inheritable(server.fileno(), True)
        os.set_inheritable(ours.fileno(), True)
        holds = await caged.warm()
        pids = children(os.getpid())
        assert len(pids) == 2
        for pid in pids:
            proc = Path(f"/proc/{pid}")
            assert (proc / "environ").read_bytes() == b""
            assert sorted(what.partition(":")[0] for what in open_files(pid).values()) == [
                *("/dev/null", "/dev/null"),
                "socket",
            ]
            status = (proc / "status").read_text()
            assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
            assert "r8_secret" not in (proc / "cmdline").read_text()
            if "no network" in holds:
                assert os.readlink(proc / "ns/net") != os.readlink("/proc/self/ns/net")
                assert [line.split(":")[0].strip() for line in (proc / "net/dev").read_text().splitlines()[2:]] == [
                    "lo"
                ]
            limits = (proc / "limits").read_text()
            for name in ("Max core file size", "Max file size", "Max open files", "Max cpu time", "Max address space"):
                assert "unlimited" not in next(line for line in limits.splitlines() if line.startswith(name))
    assert "no network" in holds or "no TCP" in holds, holds
    assert "no files" in holds and "ends with the service" in holds


@linux
@pytest.mark.hazard(54)
async def test_a_picture_costs_no_start_of_a_process_and_a_refused_file_ends_its_process(
    caged: Cage, tmp_path: Path
) -> None:
    await caged.probe(good(tmp_path), place=ME)
    (first,) = children(os.getpid())
    for _ in range(20):
        await caged.probe(good(tmp_path), place=ME)
    assert children(os.getpid()) == [first]
    (tmp_path / "cut.png").write_bytes(png()[:-5])
    with pytest.raises(InvalidMedia):
        await caged.probe(tmp_path / "cut.png", place=ME)
    await come_true(lambda: not is_there(first))
    (second,) = await come_true(lambda: children(os.getpid()))
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320
    assert children(os.getpid()) == [second]


@linux
@pytest.mark.hazard(54)
async def test_outputs_are_never_looked_at_by_a_process_that_saw_an_upload(caged: Cage, tmp_path: Path) -> None:
    await caged.probe(good(tmp_path), place=ME)
    (first,) = children(os.getpid())
    await caged.probe(good(tmp_path), place=OUTPUT)
    assert len(children(os.getpid())) == 2 and is_there(first)


@linux
@pytest.mark.hazard(54)
async def test_a_process_that_is_killed_is_an_answer_about_its_file_alone(caged: Cage, tmp_path: Path) -> None:
    work = asyncio.create_task(caged.inspect(slow(tmp_path), tmp_path / "poster", place=ME))
    (pid,) = await come_true(lambda: looking_at(tmp_path))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(InvalidMedia, match="limits"):
        await work
    assert not (tmp_path / "poster").exists()
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320


@linux
async def test_a_process_that_was_killed_while_it_waited_is_no_answer_at_all(caged: Cage, tmp_path: Path) -> None:
    await caged.probe(good(tmp_path), place=ME)
    for pid in children(os.getpid()):
        os.kill(pid, signal.SIGKILL)
        await come_true(lambda pid=pid: not is_there(pid))
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320


@linux
@pytest.mark.hazard(54)
async def test_signals_that_reach_a_whole_group_do_not_end_a_look(caged: Cage, tmp_path: Path) -> None:
    await caged.probe(good(tmp_path), place=ME)
    (pid,) = children(os.getpid())
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, one)
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320
    assert children(os.getpid()) == [pid]


@pytest.mark.hazard(54)
async def test_a_file_that_takes_too_long_is_refused_in_time(
    caged: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cage, "LOOK_S", 1.0)
    began = time.monotonic()
    with pytest.raises(InvalidMedia, match="more than 1 seconds"):
        await caged.probe(slow(tmp_path), place=ME)
    assert time.monotonic() - began < 10


@linux
@pytest.mark.hazard(54)
async def test_the_work_ends_with_the_one_who_asked(caged: Cage, tmp_path: Path) -> None:
    work = asyncio.create_task(caged.inspect(slow(tmp_path), tmp_path / "poster", place=ME))
    (pid,) = await come_true(lambda: looking_at(tmp_path))
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    await come_true(lambda: not is_there(pid))
    assert not (tmp_path / "poster").exists()
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320


async def test_an_asker_who_leaves_while_a_process_starts_leaves_it_to_the_next(caged: Cage, tmp_path: Path) -> None:
    for moment in (0.0, 0.01, 0.1):
        work = asyncio.create_task(caged.probe(good(tmp_path), place=ME))
        await asyncio.sleep(moment)  # the moment is the story
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320
    assert len(children(os.getpid())) <= 3


@pytest.mark.hazard(54)
async def test_one_client_has_one_place_and_outputs_and_others_wait_for_none_of_its_files(
    caged: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = slow(tmp_path)
    monkeypatch.setattr(places, "WAIT_S", 1.0)
    mine = [asyncio.create_task(caged.probe(file, place=ME)) for _ in range(3)]
    await come_true(lambda: looking_at(tmp_path))
    assert (await caged.probe(good(tmp_path), place=OTHER)).width == 320
    assert (await caged.inspect(good(tmp_path), tmp_path / "poster", place=OUTPUT)).width == 320
    for waiting in mine[1:]:
        with pytest.raises(MediaBusy):
            await waiting
    assert not mine[0].done()
    mine[0].cancel()
    await asyncio.gather(*mine, return_exceptions=True)
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320


@pytest.mark.hazard(54)
async def test_outputs_go_on_when_every_place_of_uploads_is_taken(
    caged: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = slow(tmp_path)
    monkeypatch.setattr(places, "WAIT_S", 0.5)
    clients = [upload(f"client {number}") for number in range(places.UPLOADS)]
    work = [asyncio.create_task(caged.probe(file, place=client)) for client in clients]
    await come_true(lambda: len(looking_at(tmp_path)) == places.UPLOADS)
    with pytest.raises(MediaBusy):
        await caged.probe(good(tmp_path), place=ME)
    assert (await caged.inspect(good(tmp_path), tmp_path / "poster", place=OUTPUT)).width == 320
    for one in work:
        one.cancel()
    await asyncio.gather(*work, return_exceptions=True)


@pytest.mark.hazard(54)
async def test_a_cage_that_cannot_be_started_is_our_trouble_and_no_fault_of_the_file(
    caged: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(MediaUnavailable, match="No such file"):
            await caged.probe(good(tmp_path), place=ME)
        patch.setattr(sys, "executable", "/bin/true")
        with pytest.raises(MediaUnavailable):
            await caged.probe(good(tmp_path), place=ME)
    assert (await caged.probe(good(tmp_path), place=ME)).width == 320


async def test_a_stop_gives_uploads_a_moment_and_lets_outputs_end(caged: Cage, tmp_path: Path, monkeypatch) -> None:
    file = slow(tmp_path)
    monkeypatch.setattr(cage, "STOP_S", 0.2)
    monkeypatch.setattr(cage, "LOOK_S", 3.0)
    uploaded = asyncio.create_task(caged.probe(file, place=ME))
    output = asyncio.create_task(caged.probe(file, place=OUTPUT))
    await come_true(lambda: len(looking_at(tmp_path)) == 2)
    caged.stop()
    with pytest.raises(MediaUnavailable, match="stopping"):
        await uploaded
    with pytest.raises(InvalidMedia):
        await output


async def test_a_picture_of_just_as_many_pixels_as_are_taken_is_read(caged: Cage, tmp_path: Path) -> None:
    path = tmp_path / "large.webp"
    Image.new("RGB", (7070, 7070), "#a03060").save(path, "WEBP", method=0)
    found = await caged.inspect(path, tmp_path / "poster", place=ME)
    assert (found.width, found.height) == (7070, 7070)


async def test_a_disk_without_room_is_no_fault_of_the_picture(caged: Cage, tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(StorageFull):
        await caged.poster(good(tmp_path), tmp_path / "full", place=OUTPUT)
    with pytest.raises(FileNotFoundError):
        await caged.probe(tmp_path / "none", place=ME)


async def test_what_the_cage_says_is_what_the_file_is(caged: Cage, tmp_path: Path) -> None:
    film = video(tmp_path / "film", frames=24)
    found = await caged.inspect(film, tmp_path / "poster", place=OUTPUT)
    assert (found.kind, found.width, found.frames) == ("video", 320, 24)
    assert await caged.probe(film, place=ME) == found
    last = await caged.frame(film, tmp_path / "last", which="last", place=ME)
    assert last == await caged.probe(tmp_path / "last", place=ME) == Probe("image", "image/jpeg", 320, 180, frames=1)
    heard = await caged.inspect(sound(tmp_path / "sound", "mp3"), tmp_path / "none", place=OUTPUT)
    assert heard.kind == "audio" and not (tmp_path / "none").exists()


HARM = """
import json, os, socket, sys
sys.path[:0] = [sys.argv[1]]
from backend.media.inside import confinement
{before}
LOOPBACK = bytearray(b"127.0.0.1")  # a name would need a codec, and that a file
holds, done = confinement.confine(os.getppid()), []
for name, harm in {{
    "tcp": lambda: socket.socket().connect((LOOPBACK, int(sys.argv[2]))),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (LOOPBACK, 9)),
    "read": lambda: open(sys.argv[3]),
    "write": lambda: open(sys.argv[3] + ".new", "w"),
    "list": lambda: os.listdir("/proc/self")[0],
    "fork": lambda: os.fork() or os._exit(0),
    "memory": lambda: bytearray(400 << 20),
    "root": lambda: os.setuid(0),
}}.items():
    try:
        harm()
    except (OSError, MemoryError):
        continue
    done.append(name)
print(json.dumps([holds, done]))
"""
WITHOUT = {
    "all there is": ("", set()),
    "no namespaces": ("confinement._leave_network = confinement._leave_files = lambda *_: False", {"udp"}),
    "no Landlock": ("confinement._lock_files = lambda _: (False, False)", set()),
    "another system": ("confinement._LINUX = False", {"tcp", "udp", "read", "write", "list", "root"}),
}


@linux
@pytest.mark.hazard(54)
@pytest.mark.parametrize("name", WITHOUT)
def test_what_a_process_that_was_taken_over_can_still_do(tmp_path: Path, name: str) -> None:
    """With less of a system than there is here, the rest still holds, and it says what does."""
    before, possible = WITHOUT[name]
    secret = tmp_path / "secret"
    secret.write_text("key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        root, port = str(Path(media.__file__).parent.parent.parent), str(server.getsockname()[1])
        ran = subprocess.run(
            [sys.executable, "-I", "-c", HARM.format(before=before), root, port, str(secret)],
            env={},
            capture_output=True,
            text=True,
            check=True,
        )
    holds, done = json.loads(ran.stdout)
    assert set(done) - {"fork", "root"} <= possible, (holds, done)
    assert ("no network" in holds) == (name in ("all there is", "no Landlock"))
    assert ("no files" in holds) == (name != "another system")
    if name == "all there is" and os.geteuid() == 0:
        assert done == []


LIES: list[dict[str, Any]] = [
    {},
    {"found": None},
    {"found": {}},
    {"found": {"kind": "video", "content_type": "text/html"}},
    {"found": {"kind": "image", "content_type": "video/mp4"}},
    {"found": {"kind": ["image"], "content_type": ["image/png"]}},
    {"found": {"kind": "image", "content_type": "image/png", "width": -1}},
    {"found": {"kind": "image", "content_type": "image/png", "width": True}},
    {"found": {"kind": "image", "content_type": "image/png", "width": 1e9}},
    {"found": {"kind": "video", "content_type": "video/mp4", "duration_s": float("nan")}},
    {"found": {"kind": "video", "content_type": "video/mp4", "duration_s": "1"}},
    {"invalid": ["x"]},
    {"invalid": "line\nbreak" * 1000},
]


@pytest.mark.hazard(54)
@pytest.mark.parametrize("lie", LIES, ids=ascii)
def test_a_process_that_was_taken_over_can_say_nothing_that_a_file_could_not_be(lie: dict[str, Any]) -> None:
    with pytest.raises(InvalidMedia) as refused:
        answers.read(lie)
    assert len(refused.value.message) <= answers.MESSAGE_LETTERS and "\n" not in refused.value.message


@pytest.mark.hazard(54)
@pytest.mark.parametrize("said", ["not json\n", "[]\n", "x" * 100_000, ""])
async def test_a_process_that_says_nonsense_is_ended(
    caged: Cage, tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = b'{"holds": []}\n'
    code = f"import socket; s = socket.socket(fileno=0); s.sendall({ready!r}); s.recv(9); s.sendall({said.encode()!r})"
    with monkeypatch.context() as patch:
        patch.setattr(child, "_CODE", code)
        with pytest.raises(InvalidMedia):
            await caged.probe(good(tmp_path), place=ME)
    for pid in children(os.getpid()):
        await come_true(lambda pid=pid: not is_there(pid) or not said)


def test_every_limit_is_one_this_system_knows() -> None:
    assert all(hasattr(resource, name) for name in ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CPU"))
    assert media.MAX_PIXELS == 50_000_000
