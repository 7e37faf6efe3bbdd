"""Event streams of a real service process: killed, restarted, told to stop; with a worker that makes progress."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from crashes import tell
from crashes.case import CASES, Case
from crashes.play import play
from emulating import TINY, VIDEO, Provider, emulating, until
from gateway import Gateway, gateway
from listening import listening

from backend.core.ids import floor_id
from backend.db import events
from backend.db.sqlite import SqliteDb
from backend.web.server.protocol import QUIET_S

pytestmark = pytest.mark.story

TOLD = [case for case in CASES if case.story.__module__ == tell.__name__]


@pytest.fixture
def service(tmp_path: Path, provider: Provider) -> Iterator[Gateway]:
    with gateway(tmp_path, provider) as found:
        yield found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", TOLD, ids=lambda case: case.name.replace(" ", "-"))
def test_every_event_is_heard_once(case: Case) -> None:
    _, found = play(case, round=0)
    assert not found, found


def test_a_stop_does_not_wait_for_open_streams(service: Gateway) -> None:
    """Twenty are open; it is told to stop, and each ends as a whole answer does, before the process."""
    with ExitStack() as stack:
        ears = [stack.enter_context(listening(service.origin)) for _ in range(20)]
        assert service.stop(within_s=10) == 0, "the time for answers that take long was waited for"
        until(lambda: all(ear.ended for ear in ears))
        assert not any(ear.broken for ear in ears)


@pytest.mark.timeout(180)
def test_a_stop_does_not_wait_for_who_takes_nothing(service: Gateway) -> None:
    """What waits for him is more than the kernel's buffers hold."""
    large = {f"k{number}": "x" * 500 for number in range(16)}
    for id in service.ask_many(350, metadata=large):
        service.ended(id, "completed", 60)
    stop_on_a_deaf_one(service, after_s=QUIET_S / 2)
    service.start()
    stop_on_a_deaf_one(service, after_s=QUIET_S + 1)


def stop_on_a_deaf_one(service: Gateway, after_s: float) -> None:
    """It is told to stop when somebody has taken nothing for about so long."""
    with socket.socket() as deaf, listening(service.origin) as ear:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", int(service.origin.rpartition(":")[2])))
        deaf.sendall(f"GET /api/v2/events HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: {floor_id(0)}\r\n\r\n".encode())
        until(lambda: streams_of(service) == 2)
        stop_at = time.monotonic() + after_s
        until(lambda: time.monotonic() > stop_at)
        assert service.stop(within_s=10) == 0
        until(lambda: ear.ended)


def streams_of(service: Gateway) -> float:
    lines = service.http.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("reelhook_streams ")).split()[1])


def test_progress_is_told_to_who_is_there_without_an_id_and_is_never_an_event(tmp_path: Path) -> None:
    options = replace(TINY, video_s=6.0)
    with emulating(options) as provider, gateway(tmp_path, provider, BASE_URL="") as service:
        with listening(service.origin) as ear:
            id = service.ask("video", model=VIDEO)["id"]
            service.ended(id, "completed", 60)
            until(lambda: any(one.data["data"]["id"] == id for one in ear.heard("generation.completed")))
        told = [one for one in ear.messages if one.data["data"]["id"] == id]
        assert (told[0].type, told[-1].type) == ("generation.processing", "generation.completed")
        ticks = told[1:-1]
        assert ticks and all((one.type, one.id) == ("generation.progress", None) for one in ticks)
        shares = [one.data["data"]["progress"] for one in ticks]
        assert shares == sorted(shares) and all(0 <= share <= 1 for share in shares)
        with listening(service.origin, f"/api/v2/generations/{id}/events") as later:
            until(lambda: later.ended)
            assert later.types == ["generation.processing", "generation.completed"]


def test_listeners_in_every_corner_hear_all_of_a_rush(service: Gateway) -> None:
    """Some were there before, some come in the middle of it: none of them misses anything of what follows."""
    with ExitStack() as stack:
        first = stack.enter_context(listening(service.origin))
        asking = threading.Thread(target=lambda: service.accepted.extend(service.ask_many(60)))
        asking.start()
        others = []
        for share in range(1, 9):
            until(lambda share=share: len(first.ids) >= share * 10)
            others.append(stack.enter_context(listening(service.origin, last_id=first.ids[share])))
        asking.join(60)
        for id in service.accepted:
            service.ended(id, "completed", 60)
        until(lambda: len(first.heard("generation.completed")) == 60)
        for share, ear in enumerate(others, 1):
            rest = first.ids[share + 1 :]
            until(lambda ear=ear, rest=rest: len(ear.ids) >= len(rest))
            assert ear.ids == rest
    assert first.ids == sorted(set(first.ids))


def test_what_another_process_commits_is_told_too(service: Gateway) -> None:
    """Nobody rings the bell for it."""

    async def commit() -> None:
        db = await SqliteDb.open(service.folder / "reelhook.db", checkpoints=False)
        await db.write(lambda tx: events.warn(tx, client_id, None, {"budget_usd": 1}, 1))
        await db.close()

    client_id = service.http.get("/api/v2/clients").json()["items"][0]["id"]
    with listening(service.origin) as ear, listening(service.origin, f"/api/v2/clients/{client_id}/events") as other:
        asyncio.run(commit())
        until(lambda: ear.messages and other.messages)
        assert ear.types == other.types == ["budget.warning"]
        assert ear.messages[0].data["data"] == {"budget_usd": 1}
