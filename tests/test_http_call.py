"""`call`: one attempt, a true word about what was sent, and no slot lost to anybody's impatience."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers import OK, answering, listening, read_request
from waiting import come_true

import backend.http.lines
from backend.core.errors import AnswerTooLarge, BadAnswer, NotSent, Unanswered
from backend.http import Http

UNPRINTABLE = ("\u200b", "\u00a0", "\ufeff", "\u2028", "\ud800", "é", "\n", "\r", "\0", "\x0b", "\n x: y")


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = Http()
    yield client
    await client.close()


async def test_an_answer_is_read_whole(http: Http) -> None:
    seen: list[tuple[str, bytes]] = []
    async with listening(answering(OK, seen)) as base:
        answer = await http.call("POST", f"{base}/a?b=c", json={"a": "ä"}, headers={"Authorization": "Bearer x"})
    assert (answer.status, answer.json(), answer.headers["x-a"]) == (200, {}, "1, 2")
    head, body = seen[0]
    assert head.startswith("post /a?b=c http/1.1") and json.loads(body) == {"a": "ä"}
    assert "authorization: bearer x" in head and "accept-encoding: identity" in head


async def test_connections_are_kept_alive(http: Http) -> None:
    opened = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await answering(OK)(reader, writer)

    async with listening(peer) as base:
        for _ in range(5):
            await http.call("GET", base)
        assert opened == 1


async def test_a_refused_connection_means_nothing_was_sent(http: Http) -> None:
    async with listening(answering(OK)) as base:
        pass
    with pytest.raises(NotSent):
        await http.call("POST", base, json={})


@pytest.mark.parametrize("url", ["http://nobody.invalid/", "http://[::1", "ftp://127.0.0.1/"])
async def test_what_cannot_be_reached_was_not_sent(http: Http, url: str) -> None:
    with pytest.raises(NotSent):
        await http.call("POST", url, json={})


DEEP: list[Any] = []
for _ in range(50_000):
    DEEP = [DEEP]
UNWRITABLE: list[tuple[str, dict[str, Any]]] = [
    *((f"header {value!r}", {"headers": {"Authorization": f"Bearer a{value}b"}}) for value in UNPRINTABLE),
    ("header that is no text", {"headers": {"Authorization": None}}),
    ("header's name", {"headers": {"a\u200b": "b"}}),
    *((f"body {type(body).__name__}", {"json": body}) for body in (float("nan"), "\ud800", {1}, 10**5000, b"x", DEEP)),
    ("file that is gone", {"files": {"content": ("a.png", Path("/nowhere/a.png"), "image/png")}}),
    ("file that is a folder", {"files": {"content": ("a.png", Path("/"), "image/png")}}),
]
NO_ADDRESS = ("", "//x", "http://", "http://a b/", "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://xn--a/")
NO_ADDRESS += ("http://\ud800/", "http://127.0.0.1/\ud800", "http://\u200b/", f"https://{'a' * 70}.com/", "http://..")


@pytest.mark.hazard(57)
@pytest.mark.parametrize("more", [more for _, more in UNWRITABLE], ids=[name for name, _ in UNWRITABLE])
async def test_what_cannot_be_written_was_not_sent(http: Http, more: dict[str, Any]) -> None:
    seen: list[tuple[str, bytes]] = []
    async with listening(answering(OK, seen)) as base:
        await http.call("GET", base)
        with pytest.raises(NotSent) as refused:
            await http.call("POST", base, **more)
        assert len(seen) == 1 and "Bearer" not in refused.value.message
        await http.call("GET", base)


@pytest.mark.hazard(57)
@pytest.mark.parametrize("url", NO_ADDRESS)
async def test_to_what_is_no_address_nothing_is_sent(http: Http, url: str) -> None:
    with pytest.raises(NotSent):
        await http.call("POST", url, json={}, total_s=10)


@pytest.mark.hazard(57)
async def test_a_file_that_breaks_off_while_it_is_sent_may_have_arrived(http: Http) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the disk is gone")

    async with listening(answering(OK)) as base:
        with pytest.raises(Unanswered):
            await http.call("POST", base, files={"content": ("a", Broken(b"x"), "image/png")})


async def test_a_header_that_cannot_be_written_means_nothing_was_sent(http: Http) -> None:
    seen: list[tuple[str, bytes]] = []
    async with listening(answering(OK, seen)) as base:
        with pytest.raises(NotSent):
            await http.call("POST", base, json={}, headers={"Authorization": "Bearer a\nb"})
        await http.call("GET", base)
        with pytest.raises(NotSent):  # the connection was used before; this request was not sent all the same
            await http.call("POST", base, json={}, headers={"Authorization": "Bearer a\nb"})
    assert [head.split()[0] for head, _ in seen] == ["get"]


async def test_plain_text_instead_of_tls_means_nothing_was_sent(http: Http) -> None:
    async with listening(answering(OK)) as base:
        with pytest.raises(NotSent):
            await http.call("POST", base.replace("http:", "https:"), json={}, total_s=2)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 201 Cre", b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{}", b"SSH-2.0\r\n\r\n"],
    ids=["nothing", "half a head", "half a body", "not http"],
)
async def test_a_broken_answer_means_the_outcome_is_unknown_and_it_is_sent_once(http: Http, answer: bytes) -> None:
    seen: list[tuple[str, bytes]] = []
    async with listening(answering(answer, seen, keep=False)) as base:
        with pytest.raises(Unanswered):
            await http.call("POST", base, json={})
    assert len(seen) == 1


async def test_a_dead_kept_alive_connection_never_makes_a_second_post(http: Http) -> None:
    seen: list[tuple[str, bytes]] = []

    async def keeps_then_drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)
        await writer.drain()
        seen.append(await read_request(reader))

    async with listening(keeps_then_drops) as base:
        await http.call("POST", base, json={"n": 1})
        with pytest.raises(Unanswered):
            await http.call("POST", base, json={"n": 2})
    assert [json.loads(body) for _, body in seen] == [{"n": 1}, {"n": 2}]


async def test_a_connection_the_server_closed_while_idle_is_replaced_unnoticed(http: Http) -> None:
    closed: list[asyncio.StreamWriter] = []

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await asyncio.sleep(0.02)  # so that the client has taken the answer and put the connection aside
        writer.close()
        closed.append(writer)

    async with listening(hasty) as base:
        for n in range(3):
            await http.call("POST", base, json={})
            await come_true(lambda n=n: len(closed) == n + 1)
            await asyncio.sleep(0.02)  # so that the client has heard of the end


@pytest.mark.hazard(9)
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-A: ", OK.replace(b": 2", b": 99999")], ids=["head", "body"])
async def test_an_answer_that_drips_ends_at_the_total_deadline(http: Http, head: bytes) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)  # slow on purpose

    loop = asyncio.get_running_loop()
    async with listening(drip) as base:
        started = loop.time()
        with pytest.raises(Unanswered):
            await http.call("POST", base, json={}, total_s=0.4)
        assert 0.3 < loop.time() - started < 1.5


async def test_an_upload_nobody_reads_ends_at_the_total_deadline(http: Http) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(deaf) as base:
        with pytest.raises(Unanswered):
            await http.call("POST", base, content=bytes(50 << 20), total_s=0.4)


async def test_an_answer_longer_than_the_cap_is_refused(http: Http) -> None:
    async with listening(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(1000))) as base:
        with pytest.raises(AnswerTooLarge):
            await http.call("GET", base, cap_bytes=999)
        assert len((await http.call("GET", base, cap_bytes=1000)).body) == 1000


async def test_a_redirect_is_an_answer(http: Http) -> None:
    seen: list[tuple[str, bytes]] = []
    moved = b"HTTP/1.1 307 Moved\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"
    async with listening(answering(moved, seen)) as base:
        answer = await http.call("POST", base, json={})
    assert answer.status == 307 and len(seen) == 1
    with pytest.raises(BadAnswer):
        answer.json()


async def test_fifty_cancelled_calls_run_to_their_end_and_leave_every_slot_usable(monkeypatch) -> None:
    monkeypatch.setattr(backend.http.lines, "MAX_IN_FLIGHT", 5)
    http, answered, gate = Http(), [], asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            answered.append(await read_request(reader))
            await gate.wait()
            writer.write(OK)

    async with listening(peer) as base:
        calls = [asyncio.create_task(http.call("POST", base, json={"n": n})) for n in range(50)]
        await come_true(lambda: len(answered) == 5)
        for call in calls:
            call.cancel()
        assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*calls, return_exceptions=True))
        gate.set()
        await come_true(lambda: not http._running)
        assert sorted(json.loads(body)["n"] for _, body in answered) == list(range(50))
        assert await asyncio.gather(*[http.call("GET", base) for _ in range(20)])
        await http.close()


async def test_closing_waits_for_what_is_in_flight() -> None:
    http, gate = Http(), asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await gate.wait()
        writer.write(OK)

    async with listening(peer) as base:
        call = asyncio.create_task(http.call("POST", base, json={}))
        await come_true(lambda: bool(http._running))
        asyncio.get_running_loop().call_later(0.1, gate.set)
        await http.close()
        assert (await call).status == 200


async def test_closing_cuts_what_does_not_end(monkeypatch) -> None:
    monkeypatch.setattr("backend.http.client.CLOSING_S", 0.1)
    http = Http()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(deaf) as base:
        call = asyncio.create_task(http.call("POST", base, json={}))
        await come_true(lambda: bool(http._running))
        await http.close()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_full_house_means_nothing_was_sent(monkeypatch) -> None:
    monkeypatch.setattr(backend.http.lines, "MAX_IN_FLIGHT", 1)
    monkeypatch.setattr("backend.http.client.CLOSING_S", 0.1)
    http = Http()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(deaf) as base:
        first = asyncio.create_task(http.call("GET", base, total_s=1))
        await come_true(lambda: bool(http._running))
        with pytest.raises(NotSent):
            await http.call("POST", base, json={}, total_s=0.1)
        with pytest.raises(Unanswered):
            await first
        await http.close()


async def test_files_are_uploaded_piece_by_piece(http: Http, tmp_path: Path) -> None:
    seen: list[tuple[str, bytes]] = []
    (tmp_path / "a.png").write_bytes(b"P" * 300_000)
    async with listening(answering(OK, seen)) as base:
        await http.call(
            "POST",
            base,
            files={
                "content": ("a.png", tmp_path / "a.png", "image/png"),
                "other": ("b.txt", io.BytesIO(b"text"), "text/plain"),
            },
            data={"field": "value"},
        )
    head, body = seen[0]
    assert "multipart/form-data" in head and body.count(b"P") >= 300_000
    assert b'name="content"; filename="a.png"' in body and b"value" in body and b"text" in body


@pytest.mark.hazard(6)
async def test_a_proxy_in_the_environment_is_ignored(http: Http, monkeypatch) -> None:
    canary: list[tuple[str, bytes]] = []
    async with listening(answering(OK, canary)) as proxy, listening(answering(OK)) as base:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        await http.call("GET", base)
    assert not canary


async def test_no_url_is_logged(http: Http, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening(answering(OK)) as base:
        await http.call("GET", f"{base}/?signature=canary")
    assert "canary" not in caplog.text
    assert not [each for each in caplog.records if each.name.startswith("http")]


async def test_names_whose_servers_are_silent_hold_up_no_other_name(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered, real = threading.Semaphore(0), threading.Event(), socket.getaddrinfo

    def look_up(host: str, *args: Any, **more: Any) -> Any:
        if host.endswith(".silent.example"):
            asked.release()
            answered.wait(60)
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    names = [f"http://{number}.silent.example/" for number in range(40)]
    waiting = [asyncio.create_task(http.send(name, content=b"", headers={}, total_s=60)) for name in names]
    try:
        async with listening(answering(OK)) as base:
            answer = await http.call("GET", base.replace("127.0.0.1", "localhost"), total_s=20, connect_s=20)
        assert answer.status == 200
        assert all(asked.acquire(timeout=20) for _ in names)  # every one of them was asked for, and waits
        assert not any(task.done() for task in waiting)
    finally:
        answered.set()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
