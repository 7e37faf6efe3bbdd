"""Event streams: who hears what, from where on, until when; on the real application without a worker."""

from __future__ import annotations

import asyncio
import gc
import itertools
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from api_service import Service, Tenant, png, running
from emulating import until
from listening import Ear, listening
from sse_starlette.sse import AppStatus

from backend.core.errors import Unavailable
from backend.core.generation import CANCELED
from backend.core.ids import floor_id, new_id
from backend.db import events, feed, generations
from backend.db.connection import Tx
from backend.db.feed import Topic
from backend.live import listener as listeners
from backend.live.tail import Tail
from backend.web.calls import streams
from backend.web.server import protocol, sockets


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as found:
        yield found


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def origin(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


def hear(service: Service, key: str, path: str = "/api/v2/events", **more: Any) -> Any:
    return listening(origin(service), path, key=key, **more)


def end(service: Service, who: Tenant, **more: Any) -> str:
    """A generation with two events: it was taken by a provider, and failed."""
    id = str(service.generate(who, **more)["id"])
    service.submitted(id)
    service.failed(id)
    return id


def about(ear: Ear) -> list[tuple[str, str]]:
    """What was heard, as type and generation."""
    return [(one.type.removeprefix("generation."), one.data["data"]["id"]) for one in ear.messages]


def test_what_happens_is_told_once_in_order_to_everybody_whom_it_concerns(service: Service, who: Tenant) -> None:
    other = service.tenant("other")
    id = service.generate(who)["id"]
    paths = {
        "all": ("/api/v2/events", service.admin),
        "own": ("/api/v2/events", who.key),
        "client": (f"/api/v2/clients/{who.client_id}/events", who.key),
        "client, asked for": (f"/api/v2/events?client_id={who.client_id}", service.admin),
        "campaign": (f"/api/v2/campaigns/{who.campaign_id}/events", who.key),
        "campaign, asked for": (f"/api/v2/events?campaign_id={who.campaign_id}", who.key),
        "generation": (f"/api/v2/generations/{id}/events", who.key),
        "generation, asked for": (f"/api/v2/events?generation_id={id}", who.key),
        "others": ("/api/v2/events", other.key),
    }
    with ExitStack() as stack:
        ears = {name: stack.enter_context(hear(service, key, path)) for name, (path, key) in paths.items()}
        service.submitted(id)
        service.failed(id)
        theirs = end(service, other)
        until(lambda: len(ears["all"].messages) == 4 and len(ears["others"].messages) == 2)
        mine = [("processing", id), ("failed", id)]
        until(lambda: all(about(ear)[:2] == mine for name, ear in ears.items() if name != "others"))
        assert about(ears["all"]) == [*mine, ("processing", theirs), ("failed", theirs)]
        assert about(ears["others"]) == [("processing", theirs), ("failed", theirs)]
        assert all(about(ear) == mine for name, ear in ears.items() if name not in ("all", "others"))
        assert ears["all"].ids == sorted(set(ears["all"].ids))
        until(lambda: ears["generation"].ended)
        assert not ears["campaign"].ended


def test_a_message_is_the_event_as_webhooks_tell_it(service: Service, who: Tenant) -> None:
    with hear(service, who.key) as ear:
        id = end(service, who)
        until(lambda: len(ear.messages) == 2)
    for message in ear.messages:
        assert message.data.keys() == {"id", "type", "created_at", "data"}
        assert (message.id, message.type) == (message.data["id"], message.data["type"])
    shown = service.ask("GET", f"/api/v2/generations/{id}", key=who.key).json()
    assert ear.messages[1].data["data"] == shown
    assert ear.messages[0].data["data"]["error"] is None, "it did not know yet what was to come"


def test_a_stream_says_what_proxies_and_browsers_have_to_know(service: Service, who: Tenant) -> None:
    with hear(service, who.key) as ear:
        assert ear.headers["content-type"].startswith("text/event-stream")
        assert ear.headers["cache-control"] == "no-store"
        assert ear.headers["x-accel-buffering"] == "no"
        assert ear.headers["x-request-id"]
        assert ear.retry_ms == 2000
        assert ear.last_id, "also before the first event it is known where to go on"


def test_a_stream_goes_on_after_the_last_id_that_was_heard(service: Service, who: Tenant) -> None:
    with hear(service, who.key) as ear:
        end(service, who)
        until(lambda: len(ear.messages) == 2)
    first, second = ear.ids
    missed = end(service, who)
    with hear(service, who.key, last_id=second) as back:
        live = end(service, who)
        until(lambda: len(back.messages) == 4)
        assert [id for _, id in about(back)] == [missed, missed, live, live]
    with hear(service, who.key, f"/api/v2/events?last_event_id={first}") as by_query:
        until(lambda: len(by_query.messages) == 5)
        assert by_query.ids == [second, *back.ids]
    with hear(service, who.key, f"/api/v2/events?last_event_id={first}", last_id=back.ids[-1]) as both:
        service.submitted(service.generate(who)["id"])
        until(lambda: both.messages)
        assert len(both.messages) == 1, "the header is the newer one: browsers send it when they come back"


def test_an_id_whose_event_is_gone_or_that_lies_ahead_is_a_place_to_go_on_from(service: Service, who: Tenant) -> None:
    with hear(service, who.key) as ear:
        id = end(service, who)
        until(lambda: len(ear.messages) == 2)
    missed = end(service, who)
    assert service.ask("DELETE", f"/api/v2/generations/{id}", key=who.key).status == 204
    with hear(service, who.key, last_id=ear.ids[0]) as back:
        until(lambda: len(back.messages) == 2)
        assert {id for _, id in about(back)} == {missed}
    ahead = floor_id(service.ctx.now() + 86_400_000)
    with hear(service, who.key, last_id=ahead) as early:
        live = end(service, who)
        until(lambda: len(early.messages) == 2)
        assert {id for _, id in about(early)} == {live}


def test_more_than_a_page_is_missed_and_told_and_what_happens_meanwhile_follows(service: Service, who: Tenant) -> None:
    ids = [service.generate(who, prompt=f"fox {n}")["id"] for n in range(listeners.PAGE + 20)]
    with hear(service, who.key) as ear:
        service.submitted(ids[0])
        until(lambda: ear.messages)
    for id in ids[1:]:
        service.submitted(id)
        service.failed(id)
    with ExitStack() as stack:
        ears = [stack.enter_context(hear(service, who.key, last_id=ear.ids[0])) for _ in range(5)]
        service.failed(ids[0])
        until(lambda: all(about(one)[-1:] == [("failed", ids[0])] for one in ears))
        expected = [(type, id) for id in ids[1:] for type in ("processing", "failed")] + [("failed", ids[0])]
        assert all(about(one) == expected for one in ears)


def test_a_generations_stream_is_its_whole_story_and_ends_with_it(service: Service, who: Tenant) -> None:
    done = service.generate(who)["id"]
    service.completed(done, png())
    with hear(service, who.key, f"/api/v2/generations/{done}/events") as ear:
        until(lambda: ear.ended)
        assert about(ear) == [("processing", done), ("completed", done)]
        assert ear.messages[1].data["data"]["url"]
    with hear(service, who.key, f"/api/v2/generations/{done}/events", last_id=ear.ids[0]) as back:
        until(lambda: back.ended)
        assert about(back) == [("completed", done)]
    with hear(service, who.key, f"/api/v2/generations/{done}/events", last_id=ear.ids[1]) as over:
        until(lambda: over.ended)
        assert over.statuses == [204], "nothing is left to be told, so a browser need not come back"
    canceled = service.generate(who)["id"]
    with hear(service, who.key, f"/api/v2/generations/{canceled}/events?type=generation.completed") as ear:
        service.run(service.ctx.db.write(lambda tx: generations.move(tx, canceled, CANCELED, now=service.ctx.now())))
        until(lambda: ear.ended)
        assert ear.messages == [] and ear.statuses == [200], "it ended with the generation, told or not"


def test_a_final_generation_whose_events_were_pruned_is_not_waited_for(service: Service, who: Tenant) -> None:
    id = end(service, who)
    service.run(service.ctx.db.write(lambda tx: events.prune(tx, service.ctx.now() + 60_000, 100)))
    with hear(service, who.key, f"/api/v2/generations/{id}/events") as ear:
        until(lambda: ear.ended)
        assert ear.statuses == [200] and ear.messages == []


def test_types_are_chosen_by_name_repeated_or_with_commas(service: Service, who: Tenant) -> None:
    both = "generation.failed,generation.canceled"
    with (
        hear(service, who.key, "/api/v2/events?type=generation.failed") as failed,
        hear(service, who.key, f"/api/v2/events?type={both}&type=generation.processing") as three,
    ):
        end(service, who)
        until(lambda: len(three.messages) == 2 and failed.messages)
        assert failed.types == ["generation.failed"]


@pytest.mark.parametrize(
    "query",
    [
        *("type=generation.started", "type=", "type=generation.failed,,", "type=" + "x" * 5000, "type=%00", "types=x"),
        *("last_event_id=1", "last_event_id=" + "z" * 36, "last_event_id=%F0%9F%A6%8A"),
        *("last_event_id=a&last_event_id=b", "client_id=x&campaign_id=y", "&".join(["type=generation.failed"] * 21)),
    ],
)
def test_nonsense_in_the_query_is_422(service: Service, query: str) -> None:
    assert service.ask("GET", f"/api/v2/events?{query}").status == 422


@pytest.mark.parametrize("sent", ["1", "01a1feb9", "'; DROP TABLE events; --", "0" * 36, "x" * 3000, "..", "-1"])
def test_nonsense_as_last_event_id_is_422(service: Service, who: Tenant, sent: str) -> None:
    id = end(service, who)
    for path in ("/api/v2/events", f"/api/v2/generations/{id}/events", f"/api/v2/campaigns/{who.campaign_id}/events"):
        answer = service.ask("GET", path, key=who.key, headers={"Last-Event-ID": sent})
        assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")


def test_another_clients_events_are_not_there(service: Service, who: Tenant) -> None:
    stranger, id = service.tenant("stranger"), end(service, who)
    theirs = {"clients": who.client_id, "campaigns": who.campaign_id, "generations": id}
    for noun, whose in theirs.items():
        for known in (whose, new_id(service.ctx.now()), "nothing"):
            for path in (f"/api/v2/{noun}/{known}/events", f"/api/v2/events?{noun[:-1]}_id={known}"):
                answer = service.ask("GET", path, key=stranger.key)
                assert answer.status == 404, path
    with hear(service, stranger.key, last_id=floor_id(0)) as ear:
        own = end(service, stranger)
        until(lambda: len(ear.messages) == 2)
        assert {id for _, id in about(ear)} == {own}
    place = ear.last_id
    end(service, who)
    with hear(service, stranger.key) as ear:
        assert ear.last_id == place, "where it begins does not tell when others' last event was"


def test_nobody_without_a_key_listens(service: Service) -> None:
    assert service.ask("GET", "/api/v2/events", key="").status == 401


def test_head_is_answered_and_takes_no_place(service: Service, who: Tenant) -> None:
    answer = service.ask("HEAD", "/api/v2/events", key=who.key)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert taken(service) == 0


def taken(service: Service) -> float:
    """How many streams are open, as the metric says."""
    lines = service.ask("GET", "/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith("reelhook_streams ")).split()[1])


def test_streams_are_counted_until_their_listeners_leave(service: Service, who: Tenant) -> None:
    with hear(service, who.key), hear(service, who.key):
        assert taken(service) == 2
    until(lambda: taken(service) == 0)


def test_a_quiet_stream_beats(service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.05)
    with hear(service, who.key) as ear:
        until(lambda: ear.beats >= 3)
        end(service, who)
        until(lambda: len(ear.messages) == 2)


def test_no_library_ends_a_stream_before_its_last_word(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sse_starlette does when any server is told to stop would cut it off in the middle."""
    monkeypatch.setattr(AppStatus, "should_exit", False)
    monkeypatch.setattr(streams, "BEAT_S", 0.3)
    with hear(service, who.key) as ear:
        uvicorn.Server(uvicorn.Config("none")).handle_exit(signal.SIGTERM, None)
        until(lambda: ear.beats > 2)  # the library looks twice a second
        id = end(service, who)
        until(lambda: ("failed", id) in about(ear))
        assert not ear.broken and not AppStatus.should_exit


def test_a_revoked_key_hears_no_more(service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.05)
    with hear(service, who.key) as ear, hear(service, service.admin) as other:
        until(lambda: ear.beats)
        assert service.ask("DELETE", f"/api/v2/keys/{who.key_id}").status == 204
        until(lambda: ear.ended)
        assert not other.ended


@pytest.mark.parametrize("gone", ["generations", "campaigns", "clients"])
def test_a_stream_about_something_that_is_deleted_ends(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.05)
    id = end(service, who)
    subject = {"generations": id, "campaigns": who.campaign_id, "clients": who.client_id}[gone]
    path = f"/api/v2/{gone}/{subject}/events"
    assert gone != "generations" or service.ask("GET", path, key=who.key).status == 200
    with hear(service, service.admin, path) as ear:
        assert service.ask("DELETE", f"/api/v2/{gone}/{subject}").status == 204
        until(lambda: ear.ended)


def test_a_stream_ends_after_its_longest_time_and_goes_on_without_a_gap(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.05)
    monkeypatch.setattr(streams, "LONGEST_S", 0.2)
    with hear(service, who.key, again=True) as ear:
        until(lambda: ear.open)
        ids = [end(service, who) for _ in range(3)]
        until(lambda: len(ear.statuses) >= 3)
        ids += [end(service, who)]
        until(lambda: len(ear.messages) >= 8)
    assert about(ear) == [(type, id) for id in ids for type in ("processing", "failed")]


def test_one_who_takes_nothing_holds_nobody_up_and_costs_little_until_he_is_cut(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow one reads nothing until all is over: then every event is there, once. The deaf one never reads."""
    many = listeners.MOST_QUEUED * 3
    ids = [service.generate(who, metadata={f"k{n}": "x" * 500 for n in range(16)})["id"] for n in range(many)]
    with socket.socket() as slow, socket.socket() as deaf, hear(service, who.key) as quick:
        ask_for_events(slow, service, who.key)
        until(lambda: taken(service) == 2)
        for id in ids:
            service.submitted(id)
            service.failed(id)
        until(lambda: len(quick.messages) == 2 * many)
        assert longest_queue(service) <= listeners.MOST_QUEUED
        got = b""
        while got.count(b"\nevent: ") < 2 * many:
            got += slow.recv(1 << 20)
        heard = [line[4:].decode() for line in got.split(b"\n") if line.startswith(b"id: ")]
        assert heard[1:] == quick.ids  # the first is where it began
        monkeypatch.setattr(protocol, "STALLED_S", 0.5)
        monkeypatch.setattr(protocol, "LOOK_EVERY_S", 0.1)
        ask_for_events(deaf, service, who.key, f"Last-Event-ID: {floor_id(0)}\r\n")
        until(lambda: taken(service) == 3)
        until(lambda: taken(service) == 2)


def ask_for_events(line: socket.socket, service: Service, key: str, more: str = "") -> None:
    """Listen without reading anything."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", service.port))
    head = f"GET /api/v2/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{more}\r\n"
    line.sendall(head.encode())


def longest_queue(service: Service) -> int:
    """The most messages that wait for one listener now."""
    return max(len(one._queue) for one in gc.get_objects() if isinstance(one, listeners.Listener))


def test_streams_leave_places_for_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MOST_CONNECTIONS", 40)
    with running(tmp_path) as service, ExitStack() as stack:
        one, other = service.tenant("one"), service.tenant("other")
        for _ in range(20):
            stack.enter_context(hear(service, one.key))
        refused = service.ask("GET", "/api/v2/events", key=one.key)
        assert (refused.status, refused.json()["code"]) == (429, "too_many_streams")
        assert refused.headers["retry-after"]
        for _ in range(10):
            stack.enter_context(hear(service, other.key))
        refused = service.ask("GET", "/api/v2/events", key=other.key)
        assert (refused.status, refused.json()["code"]) == (503, "too_many_streams")
        assert refused.headers["retry-after"]
        service.generate(one)  # a request still finds its place


def test_waiting_for_the_end_is_waiting_for_all_of_them(service: Service, who: Tenant) -> None:
    ids = [service.generate(who, prompt=f"fox {n}")["id"] for n in range(3)]
    gone = end(service, who)
    service.ask("DELETE", f"/api/v2/generations/{gone}", key=who.key)
    tail = server_tail(service)
    assert [row.id for row in service.run(tail.wait_for([ids[0], gone], 0.01))] == [ids[0]]
    assert service.run(tail.wait_for([gone], 20)) == []
    waiting = asyncio.run_coroutine_threadsafe(tail.wait_for([*reversed(ids), ids[0]], 20), service.loop)
    for id in ids:
        assert not waiting.done()
        service.submitted(id)
        service.failed(id)
    rows = waiting.result(20)
    assert [(row.id, row.status) for row in rows] == [(id, "failed") for id in [*reversed(ids), ids[0]]]


def test_a_waiter_hardly_asks_the_database(service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail looks for all of them together."""
    asked: list[float] = []
    named = feed.named

    async def counting(tx: Tx, ids: Any) -> Any:
        asked.append(time.monotonic())
        return await named(tx, ids)

    monkeypatch.setattr(feed, "named", counting)
    id = service.generate(who)["id"]
    tail = server_tail(service)
    waiting = asyncio.run_coroutine_threadsafe(tail.wait_for([id], 20), service.loop)
    until(lambda: len(asked) >= 2)
    for _ in range(200):
        service.loop.call_soon_threadsafe(service.ctx.wake)
    until(lambda: len(asked) >= 3)
    service.submitted(id)
    service.failed(id)
    waiting.result(20)
    assert all(later - sooner > 0.5 for sooner, later in itertools.pairwise(asked[:3]))


def test_hundreds_who_wait_share_one_look(service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks once for itself; from then on there is one look a second for all of them."""
    batches = [service.generate(who, copies=4)["items"] for _ in range(75)]
    ids = [one["id"] for batch in batches for one in batch]
    tail, reads, read = server_tail(service), list[float](), service.ctx.db.read

    async def counting(work: Any) -> Any:
        reads.append(time.monotonic())
        return await read(work)

    monkeypatch.setattr(service.ctx.db, "read", counting)
    waiting = [asyncio.run_coroutine_threadsafe(tail.wait_for([id], 60), service.loop) for id in ids]
    until(lambda: len(reads) >= len(ids))
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 3)
    assert len([at for at in reads if begun < at < begun + 3]) < 30
    for id in ids[:2]:
        service.submitted(id)
        service.failed(id)
    assert [one.result(20)[0].status for one in waiting[:2]] == ["failed"] * 2
    assert not any(one.done() for one in waiting[2:])
    for id in ids[2:]:
        service.failed(id)
    assert [one.result(20)[0].status for one in waiting] == ["failed"] * len(ids)


def test_listeners_who_missed_something_take_turns(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred of one client that begin at the beginning are not to keep everybody from the database."""
    made = [service.ask("POST", "/api/v2/campaigns", {"name": str(n)}, key=who.key).json()["id"] for n in range(3)]
    for campaign_id in made:
        end(service, who, campaign_id=campaign_id)
    page, guard, reading, seen = feed.page, threading.Lock(), list[Topic](), list[list[Topic]]()

    async def slow(tx: Tx, topic: Topic, *more: Any) -> Any:
        if topic == Topic():  # the tail's own look
            return await page(tx, topic, *more)
        with guard:
            reading.append(topic)
            seen.append([*reading])
        threading.Event().wait(0.02)  # in the reader's thread
        with guard:
            reading.remove(topic)
        return await page(tx, topic, *more)

    monkeypatch.setattr(feed, "page", slow)
    tail = server_tail(service)

    async def listen(topic: Topic) -> int:
        count = 0
        with tail.subscribe(topic, "") as listener:
            while not listener.caught_up:
                count += len(await listener.more(within_s=20))
        return count

    async def listen_all() -> list[int]:
        return await asyncio.gather(*(listen(Topic("campaign", id)) for id in made * 5))

    assert service.run(listen_all()) == [2] * 15
    assert max(map(len, seen)) == 2
    assert all(len(set(topics)) == len(topics) for topics in seen)


def server_tail(service: Service) -> Any:
    (found,) = [one for one in gc.get_objects() if isinstance(one, Tail) and one._ctx is service.ctx]
    return found


def test_a_database_that_is_busy_interrupts_streams_and_nothing_is_missed(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, broken = feed.page, [True]

    async def failing(tx: Tx, *more: Any) -> Any:
        if broken:
            raise Unavailable
        return await page(tx, *more)

    with hear(service, who.key, again=True) as ear:
        until(lambda: ear.open)
        first = end(service, who)
        until(lambda: len(ear.messages) == 2)
        monkeypatch.setattr(feed, "page", failing)
        second = end(service, who)
        with hear(service, who.key) as other:
            until(lambda: other.ended)
        broken.clear()
        until(lambda: len(ear.messages) == 4)
        assert [id for _, id in about(ear)] == [first, first, second, second]


def test_an_expired_key_hears_no_more(service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.05)
    with hear(service, who.key) as ear:
        until(lambda: ear.beats)

        async def work(tx: Tx) -> None:
            await tx.run("UPDATE api_keys SET expires_at = 1 WHERE id = :id", id=who.key_id)

        service.run(service.ctx.db.write(work))
        until(lambda: ear.ended)
