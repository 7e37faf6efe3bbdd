"""Who may be reached: the table of tricks, on the rules and on the socket."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.errors import BlockedAddress, NotSent
from backend.http import Http, check_url, is_allowed

INSIDE = [
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.0.8",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::a9fe:a9fe",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "::169.254.169.254",
]
EVERYTHING = [ip_network("0.0.0.0/0"), ip_network("::/0")]


@pytest.mark.hazard(2)
@pytest.mark.parametrize("address", INSIDE + METADATA)
def test_an_inside_address_is_not_allowed(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.hazard(2, 13)
@pytest.mark.parametrize("address", METADATA)
def test_cloud_metadata_is_never_allowed(address: str) -> None:
    assert not is_allowed(address, EVERYTHING)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1111", "2a00:1450::8"])
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.hazard(13)
def test_an_allow_listed_network_is_allowed_however_it_is_written() -> None:
    assert is_allowed("10.1.2.3", [ip_network("10.0.0.0/8")])
    assert is_allowed("::ffff:10.1.2.3", [ip_network("10.0.0.0/8")])
    assert not is_allowed("127.0.0.1", [ip_network("10.0.0.0/8")])


@pytest.mark.hazard(5)
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://a/",
        "data:text/plain,x",
        "ftp://a/",
        "//a/",
        "a",
        "",
        "http:///x",
        "http://",
        "http://user:pw@h/",
        "http://user@h/",
        "http://@h/",
        "http://127.0.0.1\\@evil.example/",
        "http://a/\r\nX: y",
        "http://a/ b",
        "http://a/\x00",
        "http://a/\u2028",
        "http://a:99999/",
        "http://a:x/",
        "http://a:0/",
        "http://[::1/",
        "http://xn--a/",
        "http://xn--0x7f/",
        "https://xn--%00-80127.0.0.1",
        "http://a/" + "x" * 2048,
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(BlockedAddress):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a?b=c#d", "http://example.com:8080", "https://[2606::1]/ä", "http://xn--bcher-kva.example/"],
)
def test_an_ordinary_url_passes(url: str) -> None:
    check_url(url)


@pytest.mark.hazard(5)
@given(st.text() | st.builds("http://{}/{}".format, st.text(), st.text()))
def test_any_text_passes_or_is_refused_with_one_error(url: str) -> None:
    try:
        check_url(url)
    except BlockedAddress as error:
        assert url == "" or len(url) < 4 or url not in error.message


@pytest.mark.hazard(1, 2)
@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "0x7f.1",
        "0xA9FEA9FE",
        "127。0。0。1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fe80::1%25lo]",
        "a" * 70 + ".example",
        "169.254.169.254",
    ],
)
async def test_no_spelling_of_an_inside_address_is_connected_to(host: str, tmp_path, monkeypatch) -> None:
    connected: list[object] = []
    monkeypatch.setattr("backend.http.lines.connect", lambda *args: connected.append(args))
    with pytest.raises((BlockedAddress, NotSent)):
        await Http().fetch(f"http://{host}/", tmp_path / "x", cap_bytes=10, total_s=2)
    assert not connected


@pytest.mark.hazard(5)
@pytest.mark.parametrize("port", [22, 6379, 8080])
async def test_a_public_host_is_reached_on_web_ports_only(port: int, tmp_path) -> None:
    async def public(host: str, port: int) -> list[str]:
        return ["1.1.1.1"]

    with pytest.raises(BlockedAddress, match="ports"):
        await Http(resolver=public).fetch(f"http://a.example:{port}/", tmp_path / "x", cap_bytes=10, total_s=2)


@pytest.mark.hazard(3)
async def test_a_name_with_one_inside_answer_among_public_ones_is_not_reached(tmp_path) -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return ["1.1.1.1", "127.0.0.1"]

    with pytest.raises(BlockedAddress):
        await Http(resolver=mixed).fetch("http://a.example/", tmp_path / "x", cap_bytes=10, total_s=2)


@pytest.mark.hazard(3)
async def test_a_name_is_resolved_once_and_the_checked_address_is_the_one_connected_to(tmp_path) -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    with socket.socket() as bait:  # a second look at the name would lead here
        bait.bind(("127.0.0.1", 0))
        bait.listen()
        bait.setblocking(False)
        port = bait.getsockname()[1]
        http = Http(resolver=rebinding, allow_networks=[ip_network("127.0.0.2/32")])
        with pytest.raises(NotSent):
            await http.fetch(f"http://a.example:{port}/", tmp_path / "x", cap_bytes=10, total_s=2)
        with pytest.raises(BlockingIOError):
            bait.accept()
    assert asked == ["a.example"]


async def test_a_name_that_means_nothing_is_refused_by_whatever_goes_out(tmp_path) -> None:
    with pytest.raises(BlockedAddress):
        await Http().send("http://xn--a/", content=b"", headers={})
    with pytest.raises(BlockedAddress):
        await Http().fetch("http://xn--a/", tmp_path / "x", cap_bytes=10, total_s=2)
