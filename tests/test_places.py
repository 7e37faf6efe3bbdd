"""So many at a time: uploads of a client, fetches of a client and from a host; and none of them takes for ever."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, Tenant, form, png, running
from emulating import Provider
from gateway import gateway
from peers import listening, read_request
from receivers import receiving, status
from webserving import ask, until

from backend.core.errors import NoPlace, Unanswered
from backend.core.places import Places
from backend.http import Http, client, downloads
from backend.manage import assets
from backend.media import places as cages
from backend.web.calls import uploads


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path, webhook_allow_cidrs="127.0.0.0/8") as found:
        yield found


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def spool(service: Service) -> list[Path]:
    """What is on its way, or was left behind."""
    return list((Path(service.ctx.settings.storage_url.removeprefix("file:")) / "tmp").iterdir())


def open_and_removed(folder: Path) -> list[str]:
    """Files of this process that are in the folder without a name."""
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [link for link in links if link.startswith(str(folder))]


def half_sent(port: int, key: str, content: bytes, length: int = 5_000_000) -> socket.socket:
    """An upload of which nothing more comes."""
    head = f"POST /api/v2/assets HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {length}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    head += '--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(head.encode() + content)
    return connection


async def test_places_are_given_in_turn_and_never_more_than_there_are() -> None:
    places, inside, most, order = Places(2, 5), 0, 0, list[int]()

    async def visit(number: int) -> None:
        nonlocal inside, most
        async with places.take("a"):
            inside += 1
            most = max(most, inside)
            order.append(number)
            await asyncio.sleep(0.01)  # so long that the others come meanwhile
            inside -= 1

    async with places.take("b"), places.take("b"):
        await asyncio.gather(*(visit(number) for number in range(12)))
    assert (most, order) == (2, list(range(12)))
    assert not places._taken and not places._waiting


async def test_who_waits_too_long_or_in_too_long_a_line_is_refused() -> None:
    places = Places(1, 0.05)
    async with places.take("a"):
        refused = await asyncio.gather(*(_enter(places) for _ in range(20)), return_exceptions=True)
        assert [type(one) for one in refused] == [NoPlace] * 20
        with pytest.raises(NoPlace):
            await _enter(places)
    await _enter(places)
    assert not places._taken and not places._waiting


async def test_a_place_is_not_lost_with_somebody_who_leaves_the_line() -> None:
    places = Places(1, 5)
    for leaves_when_free in (False, True):
        async with places.take("a"):
            waiting = asyncio.create_task(_enter(places))
            await asyncio.sleep(0)
            if not leaves_when_free:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
        waiting.cancel()  # in the moment in which it got its place
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(_enter(places), 1)
    assert not places._taken and not places._waiting


async def test_nobody_waits_for_ever_who_comes_between_two_that_get_their_places_at_once() -> None:
    places = Places(2, 1)

    async def enter_twice() -> None:
        async with places.take("a"):
            await _enter(places)

    async with places.take("a"), places.take("a"):
        waiting = [asyncio.create_task(enter_twice()), asyncio.create_task(_enter(places))]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert not places._taken and not places._waiting


async def _enter(places: Places) -> None:
    async with places.take("a"):
        pass


@pytest.mark.hazard(56)
def test_an_upload_that_stops_ends_with_408_and_leaves_no_file(
    service: Service, who: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "IDLE_S", 1.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
    (tmp_path / "system").mkdir()
    with half_sent(service.port, who.key, b"x" * 2_000_000) as connection:
        until(lambda: spool(service))
        files = until(lambda: [file for file in spool(service) if file.stat().st_size >= 1_900_000])
        assert len(files) == 1, "it grows on the storage's own disk"
        assert not list((tmp_path / "system").iterdir()) and not open_and_removed(tmp_path / "system")
        assert b" 408 " in connection.recv(65536)
    until(lambda: not spool(service))
    assert service.ctx.reserved_bytes == {}
    assert service.ask("GET", "/api/v2/assets", key=who.key).json()["items"] == []


def test_an_upload_may_take_long_when_it_goes_on_and_not_when_it_drips(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "IDLE_S", 1.0)
    body, _ = form(png((900, 900)) + b"x" * 20_000)
    head = f"POST /api/v2/assets HTTP/1.1\r\nHost: x\r\nX-API-Key: {who.key}\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"

    def send(piece: int, pause_s: float) -> tuple[int, float]:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(head.encode())
            for start in range(0, len(body), piece):
                try:
                    connection.sendall(body[start : start + piece])
                except OSError:
                    break
                time.sleep(pause_s)  # slow on purpose
            return int(connection.recv(65536).split(b" ")[1]), time.monotonic() - began

    monkeypatch.setattr(uploads, "FLOOR_BYTES", 4_000)
    answered, took_s = send(2_000, 0.25)
    assert (answered, took_s > 2.0) == (201, True), "longer than one may be idle, at twice the floor"
    monkeypatch.setattr(uploads, "FLOOR_BYTES", 1_000_000)
    answered, took_s = send(100, 0.2)
    assert answered == 408 and took_s < 15, "never idle for long, and far below the floor"
    until(lambda: not spool(service))


@pytest.mark.hazard(56)
def test_a_client_has_so_many_uploads_at_once_and_others_are_not_kept_waiting(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "of_clients", Places(8, 0.3, refusal=uploads.too_many))
    other = service.tenant("another")
    body, headers = form(png())
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(half_sent(service.port, who.key, b"x" * 1000))
        until(lambda: len(spool(service)) == 8)
        refused = ask(service.port, "POST", "/api/v2/assets", key=who.key, content=body, headers=headers)
        assert (refused.status, refused.json()["code"]) == (429, "too_many_uploads")
        assert int(refused.headers["retry-after"]) > 0
        assert ask(service.port, "POST", "/api/v2/assets", key=other.key, content=body, headers=headers).status == 201
    until(lambda: not spool(service))
    assert ask(service.port, "POST", "/api/v2/assets", key=who.key, content=body, headers=headers).status == 201


def test_what_an_upload_left_in_a_crash_is_gone_after_the_start(tmp_path: Path, provider: Provider) -> None:
    with gateway(tmp_path, provider, forked=True) as service:
        port = int(service.origin.rpartition(":")[2])
        client_id = service.http.get("/api/v2/clients").json()["items"][0]["id"]
        folder = tmp_path / "media" / "tmp"
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        head = f"POST /api/v2/assets?client_id={client_id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        head += "Content-Length: 3000000\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
        head += '--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        connection.sendall(head.encode() + b"x" * 1_500_000)
        until(lambda: [file for file in folder.iterdir() if file.stat().st_size > 1_000_000])
        service.kill()
        connection.close()
        assert list(folder.iterdir())
        service.start()
        assert not list(folder.iterdir())


class Slow:
    """A host that holds each request until it is let go, and counts how many it holds."""

    def __init__(self) -> None:
        self.inside = self.most = self.asked = 0
        self.go = threading.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.to_thread(self.go.wait, 60)
        content = png()
        writer.write(status(200, body=content))
        await writer.drain()
        self.inside -= 1


@pytest.mark.hazard(56)
def test_fetches_have_places_for_each_client_and_for_each_host(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "of_clients", Places(4, 60, refusal=assets.too_many))
    monkeypatch.setattr(assets, "of_hosts", Places(8, 60))
    monkeypatch.setattr(cages, "WAIT_S", 60)  # eighteen pictures are looked at in turn, also where that takes long
    slow, tenants = Slow(), [service.tenant(f"client {number}") for number in range(4)]
    with receiving(usual=slow.serve) as host, ThreadPoolExecutor(24) as pool:
        asked = [
            pool.submit(service.ask, "POST", "/api/v2/assets", {"url": f"{host.origin}/{n}.png"}, key=tenants[0].key)
            for n in range(6)
        ]
        until(lambda: slow.inside == 4)
        for who in tenants[1:]:
            asked += [
                pool.submit(service.ask, "POST", "/api/v2/assets", {"url": f"{host.origin}/o.png"}, key=who.key)
                for _ in range(4)
            ]
        until(lambda: slow.inside == 8)
        time.sleep(0.2)  # nothing more comes, however long one looks
        assert (slow.most, service.ask("GET", "/healthz").status) == (8, 200)
        slow.go.set()
        assert {answer.result(90).status for answer in asked} == {201}
    assert (slow.asked, slow.most) == (18, 8)


@pytest.mark.parametrize(("of", "refused"), [("of_clients", 429), ("of_hosts", 503)])
def test_who_waits_too_long_for_a_place_is_told_to_come_again(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch, of: str, refused: int
) -> None:
    refusal = assets.too_many if of == "of_clients" else NoPlace
    monkeypatch.setattr(assets, of, Places(1, 0.2, refusal=refusal))
    slow = Slow()
    with receiving(usual=slow.serve) as host, ThreadPoolExecutor(2) as pool:
        first = pool.submit(service.ask, "POST", "/api/v2/assets", {"url": host.url}, key=who.key)
        until(lambda: slow.inside == 1)
        answer = service.ask("POST", "/api/v2/assets", {"url": host.url}, key=who.key)
        assert answer.status == refused and int(answer.headers["retry-after"]) > 0
        assert answer.json()["code"] == {"of_clients": "too_many_fetches", "of_hosts": "host_busy"}[of]
        slow.go.set()
        assert first.result(20).status == 201
    assert service.ctx.reserved_bytes == {}


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    made = Http(allow_networks=[ip_network("127.0.0.0/8")])
    yield made
    await made.close()


@pytest.mark.parametrize("where", ["head", "body"])
async def test_a_head_that_drips_and_a_body_below_the_floor_are_given_up(
    http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for module in (client, downloads):
        monkeypatch.setattr(module, "HEAD_S", 0.6)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 100000\r\n\r\n" if where == "body" else b""))
        while True:
            writer.write(b"x" if where == "body" else b"X-A: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)  # slow on purpose

    async with listening(drip) as base:
        began = time.monotonic()
        with pytest.raises(Unanswered):
            await http.fetch(base, tmp_path / "x", cap_bytes=1 << 20, total_s=60, floor=50_000)
        assert time.monotonic() - began < 20
    assert not (tmp_path / "x").exists()


async def test_a_body_that_comes_steadily_is_fetched_however_long_it_takes(
    http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (client, downloads):
        monkeypatch.setattr(module, "HEAD_S", 0.5)

    async def steady(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n")
        for _ in range(20):
            writer.write(b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.1)  # slow on purpose

    async with listening(steady) as base:
        more: dict[str, Any] = {"cap_bytes": 1 << 20, "total_s": 60, "floor": 2_000}
        assert (await http.fetch(base, tmp_path / "x", **more)).bytes == 20_000
