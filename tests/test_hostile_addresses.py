"""Addresses other people wrote: no spelling, name, redirect, proxy or file leads the service inside its own network."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import looking
import pytest
from api_service import Service, Tenant, running
from emulating import Provider, until
from hypothesis import given
from hypothesis import strategies as st
from peers import answering, listening
from workshop import working

from backend.core.errors import BlockedAddress, InvalidMedia, NotSent
from backend.http import Http, check_target, is_allowed
from backend.media.inside import videos

INSIDE = [
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0",
    "0x7f.1",
    "0xA9FEA9FE",
    "127\u30020\u30020\u30021",
    "\uff11\uff12\uff17.0.0.1",
    "127.0.0.1.",
    "localhost",
    "LOCALHOST.",
    "any.localhost",
    "10.0.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[::127.0.0.1]",
    "[fec0::1]",
    "[fd00::1]",
    "[fe80::1%25lo]",
]
METADATA = [
    "169.254.169.254",
    "0xA9FEA9FE",
    "2852039166",
    "169.254.43518",
    "100.100.100.200",
    "168.63.129.16",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
]
NEVER = [
    "file:///etc/passwd",
    "gopher://example.com/",
    "data:text/plain,x",
    "http://user:password@example.com/",
    "http://127.0.0.1\\@example.com/",
    "http:///x",
    "http://example.com/\r\nX: y",
    "https://example.com/" + "x" * 2048,
    "http://example.com:22/",
    "http://8.8.8.8:6379/",
]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose operator allows nothing inside."""
    with running(tmp_path_factory.mktemp("strict")) as found:
        yield found


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose operator allows everything that may be allowed."""
    with running(tmp_path_factory.mktemp("open"), webhook_allow_cidrs="0.0.0.0/0,::/0") as found:
        yield found


def ask_for_webhook(service: Service, who: Tenant, url: str) -> Any:
    wanted = {"campaign_id": who.campaign_id, "prompt": "a fox", "webhook_url": url}
    return service.ask("POST", "/api/v2/generate/image", wanted, key=who.key)


def bring(service: Service, who: Tenant, url: str) -> Any:
    return service.ask("POST", "/api/v2/assets", {"url": url}, key=who.key)


@pytest.mark.hazard(1, 2, 5)
def test_a_webhook_url_that_leads_inside_is_refused_when_it_is_written(strict: Service) -> None:
    who = strict.tenant()
    for url in [f"http://{host}/hook" for host in INSIDE + METADATA] + NEVER:
        answer = ask_for_webhook(strict, who, url)
        assert answer.status == 422, url
        assert answer.json()["errors"][0]["field"] == "webhook_url"
    rows = strict.ask("GET", "/api/v2/generations", key=who.key).json()["items"]
    assert rows == []


@pytest.mark.hazard(1, 2, 5)
def test_an_asset_url_that_leads_inside_is_refused(strict: Service) -> None:
    who = strict.tenant()
    for url in [f"http://{host}/a.png" for host in INSIDE + METADATA] + NEVER:
        answer = bring(strict, who, url)
        assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json"), url


@pytest.mark.hazard(13)
def test_the_operators_networks_are_open_and_metadata_never_is(open_house: Service) -> None:
    who = open_house.tenant()
    for url in ("http://10.1.2.3:8080/hook", "http://192.168.1.5/hook", "http://[fd12::1]:9000/", "https://nas.lan/x"):
        assert ask_for_webhook(open_house, who, url).status == 202, url
    for host in METADATA:
        assert ask_for_webhook(open_house, who, f"http://{host}/hook").status == 422, host
        assert bring(open_house, who, f"http://{host}/a.png").status == 422, host


@pytest.mark.parametrize("url", ["https://example.com/hook", "http://example.com:80/", "https://1.1.1.1/hook"])
def test_a_public_webhook_url_is_taken(strict: Service, url: str) -> None:
    assert ask_for_webhook(strict, strict.tenant(), url).status == 202


@pytest.mark.hazard(2)
@given(st.ip_addresses(v=4))
def test_an_inside_ipv4_address_is_inside_in_every_ipv6_that_holds_it(address: IPv4Address) -> None:
    bits = int(address)
    holders = [bits | 0xFFFF << 32, bits, bits | 0x0064_FF9B << 96, bits | 0x0064_FF9B_0001 << 80]
    holders += [bits << 80 | 0x2002 << 112, bits << 64 | 0x2001 << 112]
    for holder in holders:
        is_mapped = holder >> 32 == 0xFFFF
        assert is_allowed(str(IPv6Address(holder))) == (is_mapped and is_allowed(str(address)))


@pytest.mark.hazard(1)
@given(st.ip_addresses(v=4), st.sampled_from(["{0}", "{0:#x}", "{0:#o}", "{1}.{2}", "{1:#x}.{3}.{4}"]))
def test_every_spelling_of_an_address_is_judged_as_that_address(address: IPv4Address, spelling: str) -> None:
    bits = int(address)
    parts = (bits, bits >> 24, bits & 0xFFFFFF, bits >> 16 & 0xFF, bits & 0xFFFF)
    spelled = spelling.format(*parts).replace("0o", "0")
    try:
        check_target(f"http://{spelled}/")
    except BlockedAddress:
        assert not is_allowed(str(address))
    else:
        assert is_allowed(str(address))


@pytest.mark.hazard(3, 4)
async def test_a_name_that_changes_its_answer_between_two_hops_is_checked_again(tmp_path: Path) -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    round_trip = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    seen: list[tuple[str, bytes]] = []
    http = Http(resolver=rebinding, allow_networks=[ip_network("127.0.0.1/32")])
    async with listening(answering(round_trip, seen)) as base:
        port = base.rpartition(":")[2]
        with pytest.raises(BlockedAddress):
            await http.fetch(f"http://a.example:{port}/", tmp_path / "x", cap_bytes=10, total_s=5, hops=3)
    assert len(asked) == 2 and len(seen) == 1


@pytest.mark.hazard(4)
async def test_a_chain_of_redirects_ends_after_the_hops_that_are_allowed(tmp_path: Path, open_house: Service) -> None:
    again = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    seen: list[tuple[str, bytes]] = []
    who = open_house.tenant()
    async with listening(answering(again, seen)) as base:
        answer = await asyncio.to_thread(bring, open_house, who, f"{base}/a.png")
    assert answer.json()["code"] == "fetch_failed" and len(seen) == 4


@pytest.mark.hazard(6)
async def test_no_proxy_of_the_environment_sees_a_download_or_a_webhook(tmp_path: Path, monkeypatch) -> None:
    canary: list[tuple[str, bytes]] = []
    http = Http(allow_networks=[ip_network("127.0.0.0/8")])
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with listening(answering(ok, canary)) as proxy, listening(answering(ok)) as base:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        await http.fetch(base, tmp_path / "x", cap_bytes=10, total_s=5)
        await http.send(base, content=b"{}", headers={})
        with pytest.raises(BlockedAddress):
            await Http().fetch(base, tmp_path / "y", cap_bytes=10, total_s=5)
        with pytest.raises(NotSent):
            await http.fetch(base.replace("http:", "https:"), tmp_path / "z", cap_bytes=10, total_s=5)
    assert not canary


@pytest.mark.hazard(7)
@pytest.mark.parametrize(
    ("origin", "served"),
    [
        (("replicate.delivery", 443, "https"), True),
        (("pbxt.replicate.delivery", 443, "https"), True),
        (("replicate.delivery.example", 443, "https"), False),
        (("evilreplicate.delivery", 443, "https"), False),
        (("replicate.delivery", 443, "http"), False),
        (("replicate.delivery", 80, "http"), False),
        (("replicate.delivery", 8443, "https"), False),
        (("delivery", 443, "https"), False),
        ((".replicate.delivery.", 443, "https"), False),
        (("127.0.0.1", 443, "https"), False),
        (("", 443, "https"), False),
    ],
    ids=str,
)
def test_outputs_come_from_the_providers_own_hosts_over_https(
    strict: Service, origin: tuple[str, int, str], served: bool
) -> None:
    assert strict.ctx.providers["replicate"].may_serve(*origin) is served


@contextmanager
def bait() -> Iterator[tuple[int, Callable[[], bool]]]:
    """A port of this machine that nobody should come to, and whether somebody did."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        def taken() -> bool:
            with suppress(BlockingIOError):
                listener.accept()[0].close()
                return True
            return False

        yield listener.getsockname()[1], taken


@pytest.mark.hazard(7, 8)
def test_a_forged_output_is_not_fetched_and_the_row_says_so_without_its_address(
    tmp_path: Path, provider: Provider
) -> None:
    """Not even where the operator lets clients' own URLs lead."""
    with bait() as (port, taken), working(tmp_path, provider, webhook_allow_cidrs="127.0.0.0/8") as shop:
        provider.spoil({"kind": "output_other_host", "url": f"http://127.0.0.1:{port}/canary-of-the-inside"})
        failed = shop.ended(shop.ask()["id"], "failed")
        assert failed["error"]["code"] == "output_invalid" and not failed["error"]["retryable"]
        assert "canary" not in str(failed) and str(port) not in str(failed["error"])
        assert not taken()


CANARY = b"canary-of-the-inside"
TALES = [
    b"HTTP/1.1 500 Oops\r\nContent-Length: 20\r\nX-Inside: %b\r\n\r\n%b" % (CANARY, CANARY),
    b"HTTP/1.1 404 %b\r\nContent-Length: 20\r\n\r\n%b" % (CANARY, CANARY),
    b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nContent-Type: image/%b\r\n\r\n%b" % (CANARY, CANARY),
    b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/%b\r\nContent-Length: 0\r\n\r\n" % CANARY,
    b"HTTP/1.1 302 Found\r\nLocation: ftp://%b/\r\nContent-Length: 0\r\n\r\n" % CANARY,
    b"%b\r\n\r\n" % CANARY,
    b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % CANARY,
    b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: 20\r\n\r\n%b" % (CANARY, CANARY),
    b"HTTP/1.1 200 OK\r\n\r\n%b" % CANARY,
]


@pytest.mark.hazard(8)
async def test_nothing_an_inner_host_answers_comes_out(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path_factory.mktemp("told"), webhook_allow_cidrs="127.0.0.0/8") as service:
        who = service.tenant()
        codes = set()
        for tale in TALES:
            async with listening(answering(tale, keep=False)) as base:
                answer = await asyncio.to_thread(bring, service, who, f"{base}/a.png")
            assert answer.status == 422, tale
            assert CANARY not in answer.body and b"10.0.0.1" not in answer.body
            codes.add(answer.json()["code"])
    assert codes == {"fetch_failed", "blocked_address", "invalid_media"}
    assert CANARY.decode() not in "".join(capfd.readouterr())


IN_OPEN = 0x20


@contextmanager
def opened_in(folder: Path) -> Iterator[Callable[[], set[str]]]:
    """The names of the files in the folder that anybody opens meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN) >= 0

    def names() -> set[str]:
        found = set()
        with suppress(BlockingIOError):
            while events := os.read(watch, 65536):
                at = 0
                while at < len(events):
                    length = struct.unpack_from("iIII", events, at)[3]
                    found.add(events[at + 16 : at + 16 + length].rstrip(b"\0").decode())
                    at += 16 + length
        return found - {""}

    try:
        yield names
    finally:
        os.close(watch)


def playlists(folder: Path, port: int) -> dict[str, bytes]:
    """Texts that a demuxer of their own kind would follow to a file and to a socket."""
    inside, outside = str(folder / "secret.ts"), f"http://127.0.0.1:{port}/canary.ts"
    texts = {
        "hls": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\n{inside}\n#EXTINF:1,\n{outside}\n#EXT-X-ENDLIST\n",
        "hls at once": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{outside}\n",
        "concat": f"ffconcat version 1.0\nfile '{inside}'\nfile '{outside}'\n",
        "concat of a neighbour": "ffconcat version 1.0\nfile secret.ts\n",
        "sdp": f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=video {port} RTP/AVP 96\r\n",
        "dash": f'<?xml version="1.0"?><MPD><Period><BaseURL>{outside}</BaseURL></Period></MPD>',
    }
    plain = {name: text.encode() for name, text in texts.items()}
    heads = {
        "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        "mp3": b"ID3\x04\0\0\0\0\0\0",
        "wav": b"RIFF\xff\xff\xff\0WAVE",
    }
    return plain | {f"{head} and {name}": heads[head] + text for head in heads for name, text in plain.items()}


@pytest.mark.hazard(12)
def test_a_playlist_that_calls_itself_a_film_opens_no_file_and_no_socket(tmp_path: Path) -> None:
    (tmp_path / "secret.ts").write_bytes(b"G" + bytes(187))
    with bait() as (port, taken), opened_in(tmp_path) as names:
        for content in playlists(tmp_path, port).values():
            film = tmp_path / "film.mp4"
            film.write_bytes(content)
            with pytest.raises(InvalidMedia):
                looking.probe(film, full=True)
            for kind in videos.DEMUXERS:  # as if the first bytes had deceived us
                with film.open("rb") as file, pytest.raises(InvalidMedia):
                    videos.probe_video(file, kind, full=True)
        assert names() == {"film.mp4"}
        assert not taken()


def test_the_bait_is_good(tmp_path: Path) -> None:
    """Without this the tests above could pass because nobody looks."""
    (tmp_path / "secret.ts").write_bytes(b"x")
    with bait() as (port, taken), opened_in(tmp_path) as names:
        (tmp_path / "secret.ts").read_bytes()
        socket.create_connection(("127.0.0.1", port)).close()
        until(taken)
        assert names() == {"secret.ts"}
