"""What counts as an answer in HTTP/1.1, and what a connection is used for after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from peers import OK, Peer, answering, listening, read_request

from backend.core.errors import NotSent, Unanswered
from backend.http import Http


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = Http()
    yield client
    await client.close()


def counting(peer: Peer, opened: list[int]) -> Peer:
    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        await peer(reader, writer)

    return counted


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
READ = {
    "length": LENGTH + b"\r\nok",
    "chunks": CHUNKED + b"\r\n1\r\no\r\n1;a=b\r\nk\r\n0\r\n\r\n",
    "connection's end": b"HTTP/1.1 200 OK\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "after a 100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\n" + LENGTH + b"\r\nok",
    "lines without CR": LENGTH.replace(b"\r", b"") + b"\nok",
    "chunks and a length": CHUNKED + b"Content-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "no reason": LENGTH.replace(b" OK", b"") + b"\r\nok",
    "large head": LENGTH + b"X-B: " + b"b" * 90_000 + b"\r\n\r\nok",
    "many headers": LENGTH + b"X-B: b\r\n" * 500 + b"\r\nok",
    "an offer of HTTP/2": LENGTH + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\nok",
}


@pytest.mark.parametrize("name", READ)
async def test_an_answer_is_read_however_its_end_is_said(http: Http, name: str) -> None:
    async with listening(answering(READ[name], keep=False)) as base:
        answer = await http.call("POST", base, json={}, total_s=5)
    assert (answer.status, answer.body) == (200, b"ok") and "x" not in answer.headers


@pytest.mark.parametrize("name", READ)
async def test_an_answer_is_read_byte_by_byte(http: Http, name: str) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        step = 1 if len(READ[name]) < 1000 else 1000
        for at in range(0, len(READ[name]), step):
            writer.write(READ[name][at : at + step])
            await writer.drain()
            await asyncio.sleep(0)

    async with listening(slow) as base:
        assert (await http.call("GET", base, total_s=5)).body == b"ok"


REFUSED = {
    "SSH": b"SSH-2.0\r\n\r\n",
    "two lengths": LENGTH + b"Content-Length: 3\r\n\r\nok",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
    "huge length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "two codings": CHUNKED.replace(b"chunked", b"gzip, chunked") + b"\r\n2\r\nok\r\n0\r\n\r\n",
    "chunk of no size": CHUNKED + b"\r\nzz\r\nok\r\n0\r\n\r\n",
    "chunk that goes on": CHUNKED + b"\r\n2\r\nokay\r\n0\r\n\r\n",
    "space before the colon": LENGTH + b"X : y\r\n\r\nok",
    "NUL in a header": LENGTH + b"X: \0\r\n\r\nok",
    "CR in a header": LENGTH + b"X: a\rb\r\n\r\nok",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + LENGTH + b"\r\nok",
    "status of two digits": LENGTH.replace(b"200", b"20") + b"\r\nok",
    "status 000": LENGTH.replace(b"200", b"000") + b"\r\nok",
    "nothing after a 100": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_answer_leaves_the_outcome_unknown(http: Http, name: str) -> None:
    async with listening(answering(REFUSED[name], keep=False)) as base:
        with pytest.raises(Unanswered):
            await http.call("POST", base, json={}, total_s=5)


ENDLESS = {
    "head": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 500),
    "1xx": (b"", b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" * 100),
    "empty lines": (b"", b"\r\n" * 2000),
    "extension of a chunk": (CHUNKED + b"\r\n2;", b"x" * 4096),
    "trailers": (CHUNKED + b"\r\n2\r\nok\r\n0\r\n", b"X: y\r\n" * 500),
    "a trailer": (CHUNKED + b"\r\n2\r\nok\r\n0\r\nX: ", b"x" * 4096),
}


@pytest.mark.hazard(9)
@pytest.mark.parametrize("name", ENDLESS)
async def test_what_is_no_body_has_an_end_long_before_the_deadline(http: Http, name: str) -> None:
    start, more = ENDLESS[name]

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(start)
        while True:
            writer.write(more)
            await writer.drain()

    async with listening(endless) as base, asyncio.timeout(30):
        with pytest.raises(Unanswered):
            await http.call("GET", base, total_s=60)


async def test_trailers_change_no_header(http: Http) -> None:
    trailed = CHUNKED + b"X-A: head \t\r\n\r\n2\r\nok\r\n0\r\nX-A: tail\r\nX-B: tail\r\n\r\n"
    async with listening(answering(trailed)) as base:
        answer = await http.call("GET", base)
    assert answer.headers["x-a"] == "head" and "x-b" not in answer.headers


@pytest.mark.parametrize("pause_s", [0, 0.05])
async def test_what_nobody_asked_for_is_nobodys_answer(http: Http, pause_s: float) -> None:
    """Else the answer to one create would be taken for that to the next."""

    async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            path = head.split()[1].encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
            await asyncio.sleep(pause_s)  # the stale answer comes with the first, or after it
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nstale")
            await writer.drain()

    async with listening(talkative) as base:
        for n in range(4):
            answer = await http.call("POST", f"{base}/{n}", json={})
            assert (answer.status, answer.body) == (200, b"/%d" % n)
            await asyncio.sleep(2 * pause_s)  # so that the stale answer is there before the next question


LAST = {
    "close": LENGTH + b"Connection: keep-alive, Close\r\n\r\nok",
    "HTTP/1.0": READ["HTTP/1.0"],
    "more than the body": LENGTH + b"\r\nokay",
    "a second answer": (LENGTH + b"\r\nok") * 2,
    "half of a second answer": LENGTH + b"\r\nok" + LENGTH,
}


@pytest.mark.parametrize("name", LAST)
async def test_a_connection_that_is_of_no_more_use_is_not_used_again(http: Http, name: str) -> None:
    opened: list[int] = []
    async with listening(counting(answering(LAST[name]), opened)) as base:
        for _ in range(3):
            assert (await http.call("POST", base, json={})).body == b"ok"
    assert len(opened) == 3


@pytest.mark.parametrize("name", ["chunks", "after a 100", "an offer of HTTP/2"])
async def test_a_connection_is_used_again_after_an_answer_with_an_end(http: Http, name: str) -> None:
    opened: list[int] = []
    async with listening(counting(answering(READ[name]), opened)) as base:
        for _ in range(3):
            await http.call("GET", base)
    assert len(opened) == 1


async def test_an_answer_without_a_body_is_whole(http: Http) -> None:
    opened: list[int] = []
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    async with listening(counting(answering(head), opened)) as base:
        assert [(await http.call("HEAD", base, total_s=5)).body for _ in range(2)] == [b"", b""]
    async with listening(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as base:
        assert (await http.call("DELETE", base, total_s=5)).status == 204
    assert len(opened) == 1


async def test_a_body_of_unknown_length_goes_in_chunks_and_its_connection_is_used_again(http: Http) -> None:
    seen: list[bytes] = []
    opened: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a", b"", b"bc" * 10):
            yield piece

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await reader.readuntil(b"0\r\n\r\n"))
            writer.write(OK)

    async with listening(counting(peer, opened)) as base:
        for _ in range(2):
            await http.call("POST", base, content=pieces())
    assert len(opened) == 1
    for request in seen:
        head, _, body = request.lower().partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head and b"content-length" not in head
        assert body == b"1\r\na\r\n14\r\n" + b"bc" * 10 + b"\r\n0\r\n\r\n"


class Changed:
    """A file that says it has 9 bytes and has more or less."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        piece, self._left = b"x" * self._left, 0
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        return 9 if whence else 0

    def tell(self) -> int:
        return 0


@pytest.mark.parametrize("size", [3, 30])
async def test_a_body_that_is_not_as_long_as_was_said_is_broken_off(http: Http, size: int) -> None:
    """Else what is too much would be read as the next request."""
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listener(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            got.set_result(await reader.read())
        except ConnectionResetError:
            got.set_result(b"")

    async with listening(listener) as base, asyncio.timeout(10):
        with pytest.raises(Unanswered):
            await http.call("POST", base, files={"a": ("a", Changed(size), "text/plain")}, total_s=60)  # type: ignore
        head, _, body = (await got).partition(b"\r\n\r\n")
    said = [int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")]
    assert not head or len(body) < said[0]


async def test_an_answer_that_comes_before_the_request_is_whole_counts(http: Http) -> None:
    answered = asyncio.Event()

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        writer.write_eof()
        answered.set()
        await reader.read()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        await answered.wait()
        await asyncio.sleep(0.05)  # so that the answer is there before the rest of the question
        yield b"b"

    async with listening(hasty) as base:
        assert (await http.call("POST", base, content=pieces(), total_s=5)).status == 413


@pytest.mark.parametrize("headers", [{"": "b"}, {"a b": "c"}, {"a:": "c"}, {"a": " b"}, {"a": "b\x7f"}, {"a": b"b"}])
async def test_a_header_that_is_none_is_not_sent(http: Http, headers: dict[str, str]) -> None:
    async with listening(answering(OK)) as base:
        with pytest.raises(NotSent):
            await http.call("GET", base, headers=headers)


async def test_a_callers_header_takes_the_place_of_ours_and_never_says_how_long_a_body_is(http: Http) -> None:
    seen: list[tuple[str, bytes]] = []
    given = {"user-agent": "other", "content-type": "text/x", "content-length": "99", "ACCEPT": "a/b"}
    async with listening(answering(OK, seen)) as base:
        await http.call("POST", base, json=[1], headers=given)
        await http.call("POST", base)
    lines = seen[0][0].split("\r\n")
    for line in ("user-agent: other", "content-type: text/x", "content-length: 3", "accept: a/b"):
        assert [each for each in lines if each.startswith(line.partition(":")[0] + ":")] == [line]
    assert "content-length: 0" in seen[1][0]
