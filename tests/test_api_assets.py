"""Assets over HTTP: by upload and by URL, every kind that is taken and much that is not."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, Tenant, form, png, running
from test_media import image, png_of, sound, video
from webserving import Answer

from backend.upkeep import tidy


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("assets")
    with running(folder, webhook_allow_cidrs="127.0.0.0/8", max_asset_mb=2) as found:
        yield found


@pytest.fixture(scope="module")
def who(service: Service) -> Tenant:
    return service.tenant()


def upload(service: Service, who: Tenant, content: bytes, **more: Any) -> Answer:
    body, headers = form(content, **{name: more.pop(name) for name in ("name", "filename") if name in more})
    return service.ask("POST", "/api/v2/assets", key=who.key, content=body, headers={**headers, **more})


def spooled(service: Service) -> list[Path]:
    root = Path(service.ctx.settings.storage_url.removeprefix("file:"))
    return list((root / "tmp").iterdir())


KINDS = {
    "png": ("image", "image/png"),
    "jpeg": ("image", "image/jpeg"),
    "webp": ("image", "image/webp"),
    "gif": ("image", "image/gif"),
    "mp4": ("video", "video/mp4"),
    "webm": ("video", "video/webm"),
    "mp3": ("audio", "audio/mpeg"),
    "wav": ("audio", "audio/wav"),
}


def content_of(kind: str, folder: Path) -> bytes:
    if KINDS[kind][0] == "image":
        return image(folder / "x", kind.upper()).read_bytes()
    made = sound(folder / "x", kind) if KINDS[kind][0] == "audio" else video(folder / "x", kind=kind, frames=12)
    return made.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_is_what_its_bytes_say(service: Service, who: Tenant, tmp_path: Path, kind: str) -> None:
    content = content_of(kind, tmp_path)
    answer = upload(service, who, content, filename="holiday.exe")
    asset = answer.json()
    assert (answer.status, answer.headers["location"]) == (201, f"/api/v2/assets/{asset['id']}")
    fields = {
        "id",
        "client_id",
        "kind",
        "name",
        "url",
        "content_type",
        "bytes",
        "sha256",
        "width",
        "height",
        "duration_s",
    }
    assert set(asset) == fields | {"created_at"}
    assert (asset["kind"], asset["content_type"], asset["bytes"]) == (*KINDS[kind], len(content))
    assert (asset["name"], asset["client_id"]) == ("holiday.exe", who.client_id)
    assert (asset["width"] is None) == (asset["kind"] == "audio")
    assert (asset["duration_s"] is None) == (asset["kind"] == "image")
    assert service.ask("GET", answer.headers["location"], key=who.key).json() == asset
    assert service.ask("GET", "/api/v2/assets?limit=1", key=who.key).json()["items"] == [asset]
    for path, key in (
        (f"/api/v2/assets/{asset['id']}/data", who.key),
        (asset["url"][asset["url"].index("/api") :], ""),
    ):
        got = service.ask("GET", path, key=key)
        assert (got.status, got.body, got.headers["content-type"]) == (200, content, asset["content_type"])
    assert spooled(service) == []


REFUSED = {
    "html": b"<html><script>alert(1)</script></html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "nothing": b"",
    "text": b"just words",
    "a bomb of pixels": png_of(50_000, 50_000),
    "half a picture": png()[:-40],
    "a picture's first bytes": b"\x89PNG\r\n\x1a\n" + b"<script>" * 50,
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=list(REFUSED))
def test_what_is_no_picture_film_or_sound_is_refused_and_leaves_nothing(
    service: Service, who: Tenant, content: bytes
) -> None:
    before = service.ask("GET", "/api/v2/assets", key=who.key).json()["items"]
    answer = upload(service, who, content, filename="harmless.png")
    assert (answer.status, answer.json()["code"]) == (422, "invalid_media")
    assert service.ask("GET", "/api/v2/assets", key=who.key).json()["items"] == before
    assert spooled(service) == []


def test_more_than_the_limit_is_413(service: Service, who: Tenant) -> None:
    assert upload(service, who, b"\x89PNG\r\n\x1a\n" + bytes(2_000_001)).status == 413
    assert upload(service, who, bytes(9_000_000)).status == 413
    assert spooled(service) == []


@pytest.mark.parametrize("name", ["picture", "", "file[]"])
def test_the_part_is_named_file(service: Service, who: Tenant, name: str) -> None:
    assert upload(service, who, png(), name=name).status == 422


def test_a_body_of_another_type_is_415_and_none_is_400(service: Service, who: Tenant) -> None:
    headers = {"Content-Type": "image/png"}
    assert service.ask("POST", "/api/v2/assets", key=who.key, content=png(), headers=headers).status == 415
    assert service.ask("POST", "/api/v2/assets", key=who.key).status == 400


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        ("x" * 500, "x" * 200),
        ("a\x00b\x1b[31m.png", "ab[31m.png"),
        ("Grüße 🦊.png", "Grüße 🦊.png"),
    ],
)
def test_a_file_name_is_shown_and_never_used(service: Service, who: Tenant, filename: str, shown: str) -> None:
    answer = upload(service, who, png(), filename=filename)
    assert answer.status == 201, answer.body
    assert answer.json()["name"] == shown
    data = service.ask("GET", f"/api/v2/assets/{answer.json()['id']}/data", key=who.key)
    assert data.headers["content-disposition"] == f'inline; filename="{answer.json()["id"]}.png"'


def test_an_admin_says_whose_it_is(service: Service, who: Tenant) -> None:
    body, headers = form(png())
    assert service.ask("POST", "/api/v2/assets", content=body, headers=headers).status == 422
    path = f"/api/v2/assets?client_id={who.client_id}"
    assert service.ask("POST", path, content=body, headers=headers).json()["client_id"] == who.client_id
    other = service.tenant()
    assert service.ask("POST", path, key=other.key, content=body, headers=headers).status == 404


def test_the_same_upload_with_the_same_key_is_one_asset(service: Service, who: Tenant) -> None:
    key = {"Idempotency-Key": "upload"}
    first, again = (upload(service, who, png(), **key) for _ in range(2))
    assert (again.status, again.body) == (201, first.body) and again.headers["idempotent-replayed"] == "true"
    assert upload(service, who, png(colour="#ff0000"), **key).json()["code"] == "idempotency_key_reused"
    assert upload(service, who, b"broken", **{"Idempotency-Key": "second try"}).status == 422
    assert upload(service, who, png(), **{"Idempotency-Key": "second try"}).status == 201


def test_a_deleted_asset_is_gone_with_its_bytes_unless_it_is_needed(service: Service, who: Tenant) -> None:
    asset = upload(service, who, png()).json()
    path = f"/api/v2/assets/{asset['id']}"
    needs = service.generate(who, asset_id=asset["id"])["id"]
    assert service.ask("DELETE", path, key=who.key).json()["code"] == "in_use"
    service.ask("POST", f"/api/v2/generations/{needs}/cancel", key=who.key)
    assert service.ask("DELETE", path, key=who.key).status == 204
    assert service.ask("GET", f"{path}/data", key=who.key).status == 404
    assert service.ask("DELETE", path, key=who.key).status == 404
    assert service.run(service.ctx.store.size(f"{asset['id']}.png"))
    service.run(tidy.tidy(service.ctx))
    assert service.run(service.ctx.store.size(f"{asset['id']}.png")) is None


def test_a_sound_is_no_source_of_a_picture(service: Service, who: Tenant, tmp_path: Path) -> None:
    asset = upload(service, who, sound(tmp_path / "x", "wav").read_bytes()).json()["id"]
    wanted = {"campaign_id": who.campaign_id, "asset_id": asset}
    refused = service.ask("POST", "/api/v2/generate/image", wanted, key=who.key)
    assert (refused.status, refused.json()["errors"][0]["field"]) == (422, "asset_id")


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A web server of strangers."""

    protocol_version = "HTTP/1.1"
    gate = threading.Event()
    reached = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow.png":
            self.reached.set()
            self.gate.wait(20)
        status = {"/missing.png": 404, "/broken.png": 500, "/moved.png": 302, "/inside.png": 302, "/round.png": 302}
        self.send_response(status.get(self.path, 200))
        targets = {"/moved.png": "/a.png", "/inside.png": "http://169.254.169.254/latest", "/round.png": "/round.png"}
        if self.path in targets:
            self.send_header("Location", targets[self.path])
        body = b"<html>" if self.path == "/page.png" else png()
        body += bytes(3_000_000) if self.path == "/huge.png" else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # it may be cut, as it should be
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def bring(service: Service, who: Tenant, url: str, **headers: str) -> Answer:
    return service.ask("POST", "/api/v2/assets", {"url": url}, key=who.key, headers=headers)


@pytest.mark.hazard(13)
@pytest.mark.parametrize("path", ["/a.png", "/moved.png"])
def test_a_file_is_fetched_from_where_the_operator_allows_it(
    service: Service, who: Tenant, elsewhere: str, path: str
) -> None:
    answer = bring(service, who, elsewhere + path)
    assert (answer.status, answer.json()["content_type"], answer.json()["bytes"]) == (201, "image/png", len(png()))


@pytest.mark.hazard(8)
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/missing.png", "fetch_failed"),
        ("/broken.png", "fetch_failed"),
        ("/round.png", "fetch_failed"),
        ("/inside.png", "blocked_address"),
        ("/page.png", "invalid_media"),
        ("/huge.png", "too_large"),
    ],
)
def test_what_cannot_be_fetched_is_told_and_leaves_nothing(
    service: Service, who: Tenant, elsewhere: str, path: str, code: str
) -> None:
    answer = bring(service, who, elsewhere + path)
    assert (answer.status, answer.json()["code"]) == (422, code)
    assert spooled(service) == []


@pytest.mark.hazard(1, 2, 5)
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/x",
        "http://10.0.0.1/x",
        "http://[::1]/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://user:password@127.0.0.1/",
        "//127.0.0.1/x.png",
        "http://xn--a/x.png",
    ],
)
def test_no_inner_address_is_ever_fetched(service: Service, who: Tenant, url: str) -> None:
    answer = bring(service, who, url)
    assert (answer.status, answer.json()["code"]) == (422, "blocked_address")
    assert "password" not in answer.body.decode()


@pytest.mark.hazard(13)
def test_without_the_operators_word_this_machine_is_not_reached(
    tmp_path_factory: pytest.TempPathFactory, elsewhere: str
) -> None:
    with running(tmp_path_factory.mktemp("strict")) as strict:
        who = strict.tenant()
        assert bring(strict, who, f"{elsewhere}/a.png").json()["code"] == "blocked_address"


def test_while_a_file_is_fetched_its_key_is_409(service: Service, who: Tenant, elsewhere: str) -> None:
    Elsewhere.gate.clear()
    key = {"Idempotency-Key": "slow"}
    answers: list[Answer] = []
    first = threading.Thread(target=lambda: answers.append(bring(service, who, f"{elsewhere}/slow.png", **key)))
    first.start()
    assert Elsewhere.reached.wait(10)
    again = bring(service, who, f"{elsewhere}/slow.png", **key)
    assert (again.status, again.json()["code"]) == (409, "idempotency_key_running")
    Elsewhere.gate.set()
    first.join(10)
    assert answers[0].status == 201
    assert bring(service, who, f"{elsewhere}/slow.png", **key).json() == answers[0].json()
