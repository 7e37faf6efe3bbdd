"""Files and links as an enemy makes them: nothing is run, nothing blown up, nothing reached that was not given."""

from __future__ import annotations

import base64
import errno
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from api_service import Service, Tenant, form, png, running
from test_media import image, png_of
from webserving import Answer, raw

from backend.core.ids import is_id
from backend.live import links


@dataclass(frozen=True)
class Stage:
    service: Service
    who: Tenant
    id: str
    asset: str
    link: str
    folder: Path


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("hostile-media")
    with running(folder, max_asset_mb=40) as service:
        who = service.tenant()
        id = service.generate(who)["id"]
        service.completed(id, png(), png(kind="JPEG"))
        asset = send(service, who, *form(png())).json()["id"]
        link = urlsplit(service.ask("GET", f"/api/v2/images/{id}", key=who.key).json()["url"])
        yield Stage(service, who, id, asset, f"{link.path}?{link.query}", folder)


def send(service: Service, who: Tenant, body: bytes, headers: object) -> Answer:
    return service.ask("POST", "/api/v2/assets", key=who.key, content=body, headers=headers)


def spooled(stage: Stage) -> list[Path]:
    return list((stage.folder / "media" / "tmp").iterdir())


TRAVERSALS = ["../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..%252f..%252fetc"]
TRAVERSALS += [
    "....//....//etc/passwd",
    "..\\..\\etc\\passwd",
    "%5c..%5c..%5cetc",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc",
]
TRAVERSALS += [
    "{id}/../../../data.key",
    "{id}%00.png",
    "{id}%0a",
    "{id}%20",
    "{id}.png",
    "{id}-poster.jpg",
    "{id}%2fdata",
]
TRAVERSALS += [
    "%c0%ae%c0%ae/etc",
    "file:%2f%2f%2fetc%2fpasswd",
    ".",
    "..",
    "%2e",
    "*",
    "{id},{id}",
    "tmp",
    "",
    "{id}%ff",
]


@pytest.mark.hazard(34)
@pytest.mark.parametrize("bent", TRAVERSALS)
@pytest.mark.parametrize("path", ["images/{bent}/data", "assets/{bent}/data", "videos/{bent}/frame/first", "{bent}"])
def test_no_spelling_of_a_path_leads_out_of_what_the_database_names(stage: Stage, path: str, bent: str) -> None:
    spelled = path.replace("{bent}", bent.replace("{id}", stage.asset if "assets" in path else stage.id))
    head = (
        f"GET /api/v2/{spelled} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stage.service.admin}\r\nConnection: close"
    )
    got = raw(stage.service.port, head.encode() + b"\r\n\r\n")
    assert got[9:12] in (b"404", b"400"), got[:200]
    assert b"root:" not in got and (stage.folder / "data.key").read_bytes() not in got


@pytest.mark.hazard(35)
@pytest.mark.parametrize("tiny", ["0-0", "-1", "0-"])
@pytest.mark.parametrize("count", [2, 100, 101, 1500])
def test_many_ranges_give_no_more_bytes_than_the_file_has_and_cost_no_time(stage: Stage, tiny: str, count: int) -> None:
    whole = len(png())
    headers = {"Range": "bytes=" + ",".join([tiny] * count)}
    began = time.process_time()
    answers = [stage.service.ask("GET", f"/api/v2/images/{stage.id}/data", key=stage.who.key, headers=headers)] * 5
    assert time.process_time() - began < 2
    for answer in answers:
        assert (answer.status, len(answer.body)) == (200, whole)
        assert "multipart" not in answer.headers["content-type"]


@pytest.mark.hazard(35)
@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-0", "bytes=99999999999999999999-", "bytes=--1", "bytes=1-2-3"])
def test_a_range_that_makes_no_sense_is_the_whole_file_or_416(stage: Stage, asked: str) -> None:
    answer = stage.service.ask("GET", f"/api/v2/images/{stage.id}/data", key=stage.who.key, headers={"Range": asked})
    assert answer.status in (200, 416)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(extra: bytes) -> bytes:
    """A good PNG with one more chunk after its header."""
    good = png()
    return good[:33] + extra + good[33:]


SCRIPT = b"<script>alert(1)</script>"
ACTIVE = {
    "html": b"<!doctype html>" + SCRIPT,
    "html after blanks": b" " * 600 + b"<html>" + SCRIPT,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "svg with a declaration": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    "pdf": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>",
    "xml": b"<?xml version='1.0'?><?xml-stylesheet href='javascript:alert(1)'?><a/>",
    "javascript": b"alert(1)//" + png(),
    "a gif's name and a script": b"GIF89a/*" + b"\0" * 20 + b"*/=1;alert(1)//",
    "a jpeg's name and html": b"\xff\xd8\xff\xe0" + SCRIPT,
    "a webp's name and html": b"RIFF\x20\0\0\0WEBPVP8 " + SCRIPT,
    "an mp4's name and html": b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + SCRIPT,
    "zip": b"PK\x03\x04" + b"\0" * 60,
    "flash": b"FWS\x09" + b"\0" * 60,
    "a shell script": b"#!/bin/sh\nid\n",
    "postscript": b"%!PS-Adobe-3.0\n(/etc/passwd) run",
    "an icon": b"\0\0\1\0\1\0\1\1\0\0\1\0\x18\0" + b"\0" * 60,
    "tiff": b"II*\0\x08\0\0\0" + b"\0" * 60,
    "psd": b"8BPS\0\1" + b"\0" * 60,
    "fits": b"SIMPLE  =                    T" + b" " * 3000,
}


@pytest.mark.hazard(36)
@pytest.mark.parametrize("name", ACTIVE)
@pytest.mark.parametrize("filename", ["a.png", "a.svg", "a.html"])
def test_content_a_browser_could_run_is_no_asset_whatever_it_is_called(stage: Stage, name: str, filename: str) -> None:
    answer = send(stage.service, stage.who, *form(ACTIVE[name], filename=filename))
    assert (answer.status, answer.json()["code"]) == (422, "invalid_media")
    assert spooled(stage) == []


@pytest.mark.hazard(36)
@pytest.mark.parametrize("kind", ["a comment in a gif", "text in a png", "html in a png's name"])
def test_a_polyglot_is_given_out_as_the_picture_it_is_and_never_to_be_run(
    stage: Stage, kind: str, tmp_path: Path
) -> None:
    gif = image(tmp_path / "x", "GIF").read_bytes()
    content = {
        "a comment in a gif": gif[:-1] + b"!\xfe\x19" + SCRIPT[:25] + b"\0;",
        "text in a png": with_chunk(chunk(b"tEXt", b"Comment\0" + SCRIPT)),
        "html in a png's name": png(),
    }[kind]
    made = send(stage.service, stage.who, *form(content, filename=f"{SCRIPT.decode()}.html"))
    assert made.status == 201, made.body
    given = stage.service.ask("GET", f"/api/v2/assets/{made.json()['id']}/data", key=stage.who.key)
    wanted = "image/gif" if kind.endswith("gif") else "image/png"
    assert (given.headers["content-type"], given.body) == (wanted, content)
    assert given.headers["x-content-type-options"] == "nosniff"
    assert given.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert given.headers["referrer-policy"] == "no-referrer"
    assert "script" not in given.headers["content-disposition"]


def jpeg_of(width: int, height: int) -> bytes:
    good = bytearray(png(kind="JPEG"))
    at = good.index(b"\xff\xc0") + 5
    good[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(good)


def gif_of(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HH", width, height)
        + b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0"
        + struct.pack("<HH", width, height)
        + b"\0\x02\x02\x4c\x01\0;"
    )


def webp_of(width: int, height: int) -> bytes:
    extended = b"VP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF" + struct.pack("<I", len(extended) + 4) + b"WEBP" + extended


BOMBS = {
    "png": png_of(50_000, 50_000),
    "png of one line": png_of(2**31 - 1, 1),
    "png of no size": png_of(0, 0),
    "jpeg": jpeg_of(65_500, 65_500),
    "gif": gif_of(65_535, 65_535),
    "webp": webp_of(16_000_000, 16_000_000),
    "png with 300 MB of text": with_chunk(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(300 << 20), 9))),
    "png with 300 MB of profile": with_chunk(chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(300 << 20), 9))),
    "png with 300 MB of international text": with_chunk(
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(300 << 20), 9))
    ),
    "png of 100,000 small texts": with_chunk(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1000))) * 100_000),
}


@pytest.mark.hazard(37)
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_would_be_a_huge_picture_costs_little_and_is_no_error_of_ours(
    stage: Stage, name: str
) -> None:
    before_mb, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, time.process_time()
    answer = send(stage.service, stage.who, *form(BOMBS[name]))
    assert answer.status in (201, 422) if "text" in name or "profile" in name else answer.status == 422, answer.body
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - before_mb < 150
    assert time.process_time() - began < 10
    assert spooled(stage) == []


def part(head: str, content: bytes = b"x") -> bytes:
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


FILE = 'Content-Disposition: form-data; name="file"; filename="a.png"'
END = b"--b--\r\n"
FORMS = {
    "100,000 fields": part('Content-Disposition: form-data; name="a"', b"") * 100_000 + END,
    "100,000 files": part(FILE) * 100_000 + END,
    "a part head of 5 MB": part(FILE + "\r\nX: " + "y" * (5 << 20)) + END,
    "100,000 part heads": part(FILE + "\r\nX: y" * 100_000) + END,
    "a name of 1 MB": part('Content-Disposition: form-data; name="' + "a" * (1 << 20) + '"') + END,
    "a preamble of 10 MB": b"y" * (10 << 20) + b"\r\n" + part(FILE) + END,
    "no end": part(FILE, png()),
    "no disposition": part("Content-Type: image/png", png()) + END,
    "no name": part("Content-Disposition: form-data", png()) + END,
    "a head without an end": b"--b\r\nContent-Disposition: form-data",
    "NUL in the name": part('Content-Disposition: form-data; name="fi\0le"; filename="a"', png()) + END,
    "a form in a form": part("Content-Disposition: form-data; name=file\r\nContent-Type: multipart/mixed; boundary=c")
    + END,
    "base64": part(FILE + "\r\nContent-Transfer-Encoding: base64", b"iVBORw0KGgo=") + END,
    "two dispositions": part(FILE + "\r\n" + FILE.replace("file", "other")) + END,
    "not UTF-8": b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"; filename="\xff"\r\n\r\nx\r\n' + END,
    "bytes that are no form": bytes(range(256)) * 100,
}


@pytest.mark.hazard(38)
def test_a_form_that_the_disk_has_no_room_for_is_507(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, _mode: str) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("backend.web.calls.multipart.Path.open", full)
    body, headers = form(png())
    answer = send(stage.service, stage.who, body, headers)
    assert (answer.status, answer.json()["status"]) == (507, 507)


@pytest.mark.hazard(38)
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_is_a_trap_is_refused_soon_and_leaves_nothing(stage: Stage, name: str) -> None:
    began = time.process_time()
    answer = send(stage.service, stage.who, FORMS[name], {"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status in (400, 413, 422), (answer.status, answer.body[:200])
    assert answer.headers["content-type"] == "application/problem+json"
    assert time.process_time() - began < 5
    assert spooled(stage) == []


@pytest.mark.hazard(38)
@pytest.mark.parametrize(
    "type_",
    [
        "multipart/form-data; boundary=" + "b" * 10_000,
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=b; boundary=c",
        "multipart/form-data; charset=nonsense; boundary=b",
        "multipart/form-data; boundary=\xff",
        "application/x-www-form-urlencoded",
    ],
)
def test_a_boundary_that_is_a_trap_makes_no_error_of_ours(stage: Stage, type_: str) -> None:
    answer = send(stage.service, stage.who, part(FILE, png()) + END, {"Content-Type": type_})
    assert answer.status in (201, 400, 415, 422)


NAMES = [
    "a\r\nX-Evil: 1\r\n\r\n<html>.png",
    "a%0d%0aX-Evil: 1",
    'a"; filename="b.html',
    "a\u2028\u202egnp.html",
    "; rm -rf /",
]
NAMES += [
    "../../../../etc/cron.d/x",
    "C:\\Windows\\x.png",
    ".htaccess",
    "CON",
    "a" * 5000,
    "\ufeff",
    "%00",
    "$(id).png",
]


@pytest.mark.hazard(39)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("spelled", ["plain", "extended"])
def test_a_file_name_reaches_no_header_and_no_path(stage: Stage, name: str, spelled: str) -> None:
    quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    label = f'filename="{quoted}"' if spelled == "plain" else f"filename=\"a\"; filename*=UTF-8''{quoted}"
    files = stored(stage)
    answer = send(
        stage.service,
        stage.who,
        part(f'Content-Disposition: form-data; name="file"; {label}', png()) + END,
        {"Content-Type": "multipart/form-data; boundary=b"},
    )
    assert answer.status in (201, 400, 422), answer.body
    assert "x-evil" not in answer.headers
    made = stored(stage) - files
    assert all(is_id(new.removesuffix(".png")) for new in made)
    if answer.status == 201:
        given = stage.service.ask("GET", f"/api/v2/assets/{answer.json()['id']}/data", key=stage.who.key)
        assert given.headers["content-disposition"] == f'inline; filename="{answer.json()["id"]}.png"'
        assert "x-evil" not in given.headers


@pytest.mark.hazard(39)
def test_a_raw_line_end_in_a_file_name_is_a_form_that_is_none(stage: Stage) -> None:
    body = part('Content-Disposition: form-data; name="file"; filename="a\r\nX-Evil: 1\r\n"', png()) + END
    answer = send(stage.service, stage.who, body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status in (201, 400, 422) and "x-evil" not in answer.headers
    assert "X-Evil" not in (answer.json().get("name") or "")


def stored(stage: Stage) -> set[str]:
    return {path.name for path in stage.folder.rglob("*") if path.is_file() and not path.name.startswith("test.db")}


def mutations(link: str) -> Iterator[str]:
    """The link with each of its bytes changed in several ways, left out, or doubled."""
    for at, letter in enumerate(link):
        for other in {chr(ord(letter) ^ 1), letter.swapcase(), "A", "0", "%00", "-", "", letter * 2} - {letter, "&&"}:
            if other.isascii() and other not in (" ", "#", "\x7f"):
                yield link[:at] + other + link[at + 1 :]


@pytest.mark.hazard(40)
def test_no_link_with_one_byte_changed_gives_a_file(stage: Stage) -> None:
    assert stage.service.ask("GET", stage.link, key="").status == 200
    tried = 0
    for bent in mutations(stage.link):
        if bent.startswith("/") and not any(ord(letter) < 33 for letter in bent):
            answer = stage.service.ask("GET", bent, key="")
            assert answer.status in (400, 401, 403, 404, 422), bent
            assert answer.headers["content-type"] == "application/problem+json"
            tried += 1
    assert tried > 500


@pytest.mark.hazard(40)
@pytest.mark.parametrize("name", ["exp", "sig"])
@pytest.mark.parametrize("other", ["same", "0", "nan", "", "9" * 20, "%00", "inf", "1e9", "-1"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_no_parameter_of_a_link_may_be_given_twice(stage: Stage, name: str, other: str, order: str) -> None:
    path, _, query = stage.link.partition("?")
    value = parse_qs(query)[name][0] if other == "same" else other
    doubled = f"{name}={value}&{query}" if order == "before" else f"{query}&{name}={value}"
    answer = stage.service.ask("GET", f"{path}?{doubled}", key="")
    assert answer.status in (403, 422), answer.body[:200]


@pytest.mark.hazard(40)
@pytest.mark.parametrize(
    "exp", ["nan", "inf", "1e10", "0x7fffffff", "٣", "1_000_000_000_0", "+1", "1.0", " 1", "1" * 5000]
)
def test_an_expiry_that_is_no_plain_number_is_403(stage: Stage, exp: str) -> None:
    sig = parse_qs(stage.link.partition("?")[2])["sig"][0]
    answer = stage.service.ask("GET", f"/api/v2/images/{stage.id}/data?exp={quote(exp)}&sig={sig}", key="")
    assert (answer.status, answer.json()["code"]) == (403, "bad_signature")


@pytest.mark.hazard(40)
def test_a_signature_spelled_another_way_is_another_signature(stage: Stage) -> None:
    path, _, query = stage.link.partition("?")
    exp, sig = (parse_qs(query)[name][0] for name in ("exp", "sig"))
    same = base64.urlsafe_b64decode(sig)
    for spelled in (
        same.hex(),
        same.hex().upper(),
        sig.lower(),
        sig.upper(),
        sig + "=",
        sig + "%0a",
        sig + "%20",
        sig[:-1],
    ):
        assert stage.service.ask("GET", f"{path}?exp={exp}&sig={spelled}", key="").status == 403


@pytest.mark.hazard(40)
def test_a_link_made_with_another_key_or_for_another_method_opens_nothing(stage: Stage, tmp_path: Path) -> None:
    ctx = stage.service.ctx
    true, ctx.data_key = ctx.data_key, b"another key" * 3
    try:
        forged = urlsplit(links.link(ctx, "images", stage.id))
    finally:
        ctx.data_key = true
    assert stage.service.ask("GET", f"{forged.path}?{forged.query}", key="").status == 403
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert stage.service.ask(method, stage.link, key="").status == 405


@pytest.mark.hazard(40)
def test_an_expired_link_with_a_later_expiry_is_forged_and_not_expired(stage: Stage) -> None:
    expired = urlsplit(links.link(stage.service.ctx, "images", stage.id, life_s=-100))
    exp, sig = (parse_qs(expired.query)[name][0] for name in ("exp", "sig"))
    answers = [
        stage.service.ask("GET", f"{expired.path}?exp={value}&sig={sig}", key="") for value in (exp, int(exp) + 86_400)
    ]
    assert [(answer.status, answer.json()["code"]) for answer in answers] == [
        (410, "link_expired"),
        (403, "bad_signature"),
    ]
    given = stage.service.ask("GET", stage.link, key="")
    assert given.headers["cache-control"].startswith("private")
