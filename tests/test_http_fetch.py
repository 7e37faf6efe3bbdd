"""`fetch` and `send`: what an untrusted other side may do to us, and what it gets from us."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import ip_network
from pathlib import Path

import pytest
from peers import answering, listening, read_request
from waiting import come_true

from backend.core.errors import (
    AnswerTooLarge,
    BadAnswer,
    BlockedAddress,
    NetworkError,
    NotSent,
    StorageFull,
    Unanswered,
)
from backend.http import Http, unzip
from backend.http.lines import tls_context

LOOPBACK = [ip_network("127.0.0.0/8")]
LIMITS = {"cap_bytes": 10 << 20, "total_s": 5.0}


def ok(body: bytes, *headers: str) -> bytes:
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Content-Type: image/png", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def moved(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = Http(allow_networks=LOOPBACK)
    yield client
    await client.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


async def test_a_file_is_fetched_whole_with_its_hash(http: Http, target: Path) -> None:
    body = os.urandom(5 << 20)
    seen: list[tuple[str, bytes]] = []
    async with listening(answering(ok(body), seen)) as base:
        fetched = await http.fetch(f"{base}/a.png", target, **LIMITS)
    assert target.read_bytes() == body
    assert (fetched.bytes, fetched.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert (fetched.content_type, fetched.url) == ("image/png", f"{base}/a.png")
    assert "accept-encoding: identity" in seen[0][0]


async def test_an_empty_and_a_chunked_file_are_fetched(http: Http, target: Path) -> None:
    async with listening(answering(ok(b""))) as base:
        assert (await http.fetch(base, target, **LIMITS)).bytes == 0
    assert target.read_bytes() == b""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with listening(answering(chunked)) as base:
        assert (await http.fetch(base, target, **LIMITS)).bytes == 3


async def test_an_inside_address_is_not_fetched_from_unless_it_is_trusted(target: Path) -> None:
    http = Http()
    seen: list[tuple[str, bytes]] = []
    async with listening(answering(ok(b"x"), seen)) as base:
        with pytest.raises(BlockedAddress):
            await http.fetch(base, target, **LIMITS)
        with pytest.raises(BlockedAddress):
            await http.send(base, content=b"", headers={})
        assert not seen
        port = int(base.rpartition(":")[2])
        await http.fetch(base, target, trusted=lambda *origin: origin == ("http", "127.0.0.1", port), **LIMITS)
    assert target.read_bytes() == b"x"


@pytest.mark.hazard(9, 11)
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"",
    ],
    ids=["length", "chunks", "nothing"],
)
async def test_a_body_cut_short_leaves_no_file(http: Http, target: Path, answer: bytes) -> None:
    async with listening(answering(answer, keep=False)) as base:
        with pytest.raises(Unanswered):
            await http.fetch(base, target, **LIMITS)
    assert not target.exists()


@pytest.mark.hazard(8, 10, 11)
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nsecret", 404),
        (b"HTTP/1.1 206 Partial\r\nContent-Length: 6\r\n\r\nsecret", 206),
        (b"HTTP/1.1 200 OK\r\n\r\nsecret", 200),
        (ok(gzip.compress(bytes(10 << 20)), "Content-Encoding: gzip"), 200),
        (moved("http://127.0.0.1/secret"), 302),
    ],
    ids=["status", "part", "no end", "gzip bomb", "redirect"],
)
async def test_an_answer_that_is_no_plain_file_is_refused_without_quoting_it(
    http: Http, target: Path, answer: bytes, status: int
) -> None:
    async with listening(answering(answer, keep=False)) as base:
        with pytest.raises(BadAnswer) as caught:
            await http.fetch(base, target, **LIMITS)
    assert caught.value.status == status and "secret" not in caught.value.message
    assert not target.exists()


async def test_who_takes_a_file_as_it_comes_is_told_how_it_is_encoded(http: Http, target: Path) -> None:
    packed = gzip.compress(b"a picture")
    async with listening(answering(ok(packed, "Content-Encoding: GZIP"), keep=False)) as base:
        fetched = await http.fetch(base, target, strict=False, **LIMITS)
    assert fetched.encoding == "gzip" and target.read_bytes() == packed
    assert unzip(target, 9) == (9, hashlib.sha256(b"a picture").hexdigest())
    assert target.read_bytes() == b"a picture" and not list(target.parent.glob("*.plain"))


@pytest.mark.parametrize(
    ("content", "cap_bytes"),
    [(b"plain", 99), (gzip.compress(b"a picture"), 8), (gzip.compress(b"a picture")[:-5], 99), (b"", 99)],
    ids=["no gzip", "too large", "cut", "empty"],
)
def test_what_cannot_be_unzipped_stays_as_it_came(target: Path, content: bytes, cap_bytes: int) -> None:
    target.write_bytes(content)
    assert unzip(target, cap_bytes) in (None, (0, hashlib.sha256().hexdigest()))
    assert target.read_bytes() == content and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("size", [2049, 7900])
async def test_a_signed_url_may_be_long(http: Http, target: Path, size: int) -> None:
    seen: list[tuple[str, bytes]] = []
    async with listening(answering(ok(b"x"), seen)) as base:
        url = f"{base}/f?signature="
        await http.fetch(url + "a" * (size - len(url)), target, **LIMITS)
    assert target.read_bytes() == b"x"


@pytest.mark.hazard(9)
@pytest.mark.parametrize(
    "answer",
    [ok(bytes(3000)), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + bytes(4096)],
    ids=["declared", "not declared"],
)
async def test_more_bytes_than_the_cap_leave_no_file(http: Http, target: Path, answer: bytes) -> None:
    async with listening(answering(answer)) as base:
        with pytest.raises(AnswerTooLarge):
            await http.fetch(base, target, cap_bytes=2999, total_s=5)
    assert not target.exists()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)  # slow on purpose


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\nx")
    await asyncio.Event().wait()


@pytest.mark.hazard(9)
@pytest.mark.parametrize(("peer", "total_s", "idle_s"), [(drip, 0.4, 30), (stall, 30, 0.4)])
async def test_a_slow_body_ends_at_its_deadline(http: Http, target: Path, peer, total_s: float, idle_s: float) -> None:
    loop = asyncio.get_running_loop()
    async with listening(peer) as base:
        started = loop.time()
        with pytest.raises(Unanswered):
            await http.fetch(base, target, cap_bytes=10 << 20, total_s=total_s, idle_s=idle_s)
        assert loop.time() - started < 2
    assert not target.exists()


async def test_a_cancelled_fetch_ends_at_once_and_leaves_no_file(http: Http, target: Path) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            writer.write(bytes(1 << 20))
            await writer.drain()

    async with listening(endless) as base:
        fetch = asyncio.create_task(http.fetch(base, target, cap_bytes=1 << 40, total_s=60))
        await come_true(target.exists)
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
    assert not target.exists()


async def test_redirects_are_followed_as_far_as_allowed_and_the_key_stays_at_home(http: Http, target: Path) -> None:
    seen: list[tuple[str, bytes]] = []
    async with AsyncExitStack() as servers:
        end = await servers.enter_async_context(listening(answering(ok(b"end"), seen)))
        middle = await servers.enter_async_context(listening(answering(moved(f"{end}/b"), seen)))
        start = await servers.enter_async_context(listening(answering(moved(f"{middle}/a"), seen)))
        key = {"Authorization": "Bearer canary"}
        fetched = await http.fetch(start, target, hops=2, headers=key, **LIMITS)
        assert fetched.url == f"{end}/b" and target.read_bytes() == b"end"
        assert ["canary" in head for head, _ in seen] == [True, False, False]
        with pytest.raises(BadAnswer):
            await http.fetch(start, target, hops=1, **LIMITS)


@pytest.mark.hazard(4)
@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "//0x7f.0xa.1.1:80/",
        "file:///etc/passwd",
        "http://user@127.0.0.1/",
        "http://127.0.0.1:22/",
        "http://[::1",
    ],
)
async def test_a_redirect_to_somewhere_forbidden_is_never_followed(target: Path, location: str) -> None:
    http = Http()
    async with listening(answering(moved(location))) as base:
        port = int(base.rpartition(":")[2])
        with pytest.raises(BlockedAddress):
            await http.fetch(base, target, hops=3, trusted=lambda s, h, p: p == port, **LIMITS)


@pytest.mark.hazard(4, 7)
async def test_the_host_rule_holds_for_every_hop(http: Http, target: Path) -> None:
    asked: list[tuple[str, int, str]] = []

    def only_numbers(host: str, port: int, scheme: str) -> bool:
        asked.append((host, port, scheme))
        return host == "127.0.0.1"

    async with listening(answering(moved("http://localhost/b"))) as base:
        with pytest.raises(BlockedAddress, match="expected"):
            await http.fetch(base, target, hops=3, hosts=only_numbers, **LIMITS)
    assert asked == [("127.0.0.1", int(base.rpartition(":")[2]), "http"), ("localhost", 80, "http")]


async def test_a_full_disk_is_said_so(http: Http, target: Path) -> None:
    target.symlink_to("/dev/full")
    async with listening(answering(ok(bytes(100_000)))) as base:
        with pytest.raises(StorageFull):
            await http.fetch(base, target, **LIMITS)
    assert not target.is_symlink()


@pytest.mark.hazard(51)
async def test_a_webhook_is_posted_once_and_its_long_answer_cut(http: Http) -> None:
    seen: list[tuple[str, bytes]] = []
    long = b"HTTP/1.1 202 Accepted\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99_999
    async with listening(answering(long, seen)) as base:
        answer = await http.send(f"{base}/hook", content=b'{"a":1}', headers={"webhook-id": "1"}, cap_bytes=1000)
    assert (answer.status, len(answer.body)) == (202, 1000)
    assert seen[0][1] == b'{"a":1}' and "webhook-id: 1" in seen[0][0] and len(seen) == 1


@pytest.mark.hazard(51)
async def test_a_webhook_is_not_redirected(http: Http) -> None:
    async with listening(answering(moved("/elsewhere"))) as base:
        assert (await http.send(base, content=b"", headers={})).status == 302


@pytest.mark.hazard(51)
async def test_the_status_of_a_webhook_counts_even_when_its_body_never_ends(http: Http) -> None:
    async with listening(drip) as base:
        assert (await http.send(base, content=b"", headers={}, total_s=0.4)).status == 200


@pytest.mark.hazard(51)
async def test_a_silent_receiver_is_unanswered(http: Http) -> None:
    async with listening(answering(b"", keep=False)) as base:
        with pytest.raises(Unanswered):
            await http.send(base, content=b"", headers={})


async def test_twenty_downloads_at_once_do_not_hold_up_the_loop(http: Http, tmp_path: Path) -> None:
    body, lags = os.urandom(2 << 20), []

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)  # what is measured is how late this wakes
            lags.append(loop.time() - before - 0.01)

    async with listening(answering(ok(body))) as base:
        watcher = asyncio.create_task(watch())
        await asyncio.gather(*[http.fetch(base, tmp_path / str(n), **LIMITS) for n in range(20)])
        watcher.cancel()
    assert sorted(lags)[int(len(lags) * 0.9)] < 0.5  # one TLS context a fetch held it up for 1.7 s


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
async def test_tls_checks_the_name_and_not_the_address(tmp_path: Path, target: Path, monkeypatch) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=media.example -keyout {key} -out {cert}"
        " -addext subjectAltName=DNS:media.example",
        shell=True,
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    tls_context.cache_clear()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(cert, key)
    server = await asyncio.start_server(answering(ok(b"tls")), "127.0.0.1", 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    http = Http(allow_networks=LOOPBACK, resolver=here)
    try:
        await http.fetch(f"https://media.example:{port}/", target, **LIMITS)
        assert target.read_bytes() == b"tls"
        with pytest.raises(NotSent):
            await http.fetch(f"https://other.example:{port}/", target, **LIMITS)
    finally:
        server.close()
        tls_context.cache_clear()


async def test_every_network_failure_is_one_of_ours(http: Http, target: Path) -> None:
    for junk in (
        b"\x00" * 200,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"\r\n" * 9,
    ):
        async with listening(answering(junk, keep=False)) as base:
            with pytest.raises(NetworkError):
                await http.fetch(base, target, **LIMITS)
