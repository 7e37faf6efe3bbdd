"""What was paid for is kept: every output of a prediction, byte for byte, whatever we think of it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import commands
import httpx
import looking
import pytest
from auditor import witness
from crashes.play import play
from crashes.stories import CASES
from emulating import TINY, Provider, emulating, png, until
from odd_files import ODD, film, still
from workshop import Workshop, working

from backend.backup.taking import take
from backend.cli.processes import environment
from backend.config import Settings
from backend.core import filing
from backend.core.errors import InvalidMedia
from backend.media import data_uris
from backend.providers import outputs
from backend.steps import leased
from backend.steps.outputs import LAST_LOOK
from backend.upkeep import tidy
from reelhook import Client, DownloadFailed

pytestmark = pytest.mark.hazard(61)
PAGES = {
    "nothing": b"",
    "html": b"\xef\xbb\xbf\n<!DOCTYPE HTML><title>Error</title>",
    "html after a comment": b"<!-- edge 7 --><html><body>gone</body></html>",
    "an object store's error": b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>',
    "json": b'{"detail": "The output was deleted."}',
    "json of a gateway": b' {"code": 502, "message": "bad gateway"}\n',
}


def _file(content: bytes, name: str = "out.bin") -> dict[str, Any]:
    return {"kind": "output_file", "base64": base64.b64encode(content).decode(), "name": name}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _forward_until_final(shop: Workshop, id: str) -> dict[str, Any]:
    """Its end, with the pauses between the tries left out."""

    def final() -> dict[str, Any] | None:
        now = shop.get(id)
        row = shop.row(id)
        if now["status"] in ("completed", "failed"):
            return now
        if row.status == "storing" and row.lease_owner is None and row.due_at > shop.clock():
            shop.forward((row.due_at - shop.clock()) / 1000 + 0.001)
        return None

    found: dict[str, Any] = until(final, 60)
    return found


@pytest.mark.parametrize("what", ODD)
def test_a_whole_file_is_kept_and_served_whatever_is_thought_of_it(
    shop: Workshop, provider: Provider, what: str
) -> None:
    make, content_type, inline = ODD[what]
    content = make()
    provider.spoil(_file(content))
    made = shop.ended(shop.ask()["id"], "completed", 40)
    assert provider.ledger["downloads"] == 1
    assert (made["content_type"], made["bytes"], made["sha256"]) == (content_type, len(content), _sha256(content))
    assert (made["poster_url"] is None) == (made["width"] is None)
    if made["media"]["state"] == "unread":
        assert made["media"]["why"] and made["width"] is made["height"] is made["duration_s"] is None
    (file,) = made["files"]
    assert file == {"index": 0, **{name: made[name] for name in file if name != "index"}}
    for url in (made["url"], f"{shop.origin}/api/v2/images/{made['id']}/data?file=0"):
        answer = httpx.get(url)
        assert answer.status_code == 200 and answer.content == content
        assert answer.headers["content-type"] == content_type
        assert answer.headers["content-disposition"].startswith("inline" if inline else "attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (lambda: ODD["film with longer sound"][0](), (64, 48)),
        (lambda: ODD["jpeg with odd exif"][0](), (64, 48)),
        (lambda: ODD["webp of 260 frames"][0](), (16, 16)),
        (lambda: still("JPEG", size=(1, 1000)), (1, 1000)),
        (lambda: still("JPEG", size=(9000, 4)), (9000, 4)),
    ],
    ids=["longer sound", "odd exif", "260 frames", "thin", "flat"],
)
def test_what_players_and_browsers_show_is_read(
    tmp_path: Path, content: Callable[[], bytes], size: tuple[int, int]
) -> None:
    path, poster = tmp_path / "file", tmp_path / "poster"
    path.write_bytes(content())
    found = looking.inspect(path, poster)
    assert (found.width, found.height) == size and poster.stat().st_size


@pytest.mark.parametrize("what", ["image", "video"])
def test_a_zipped_answer_is_kept_as_the_file_in_it(shop: Workshop, provider: Provider, what: str) -> None:
    source = {"asset_id": shop.upload(png())} if what == "video" else {}
    whole = shop.ended(shop.ask(what, **source)["id"], "completed", 40)
    provider.spoil({"kind": "output_gzip"})
    made = shop.ended(shop.ask(what, **source)["id"], "completed", 40)
    assert made["content_type"] == whole["content_type"] and made["media"]["state"] == "read"
    assert httpx.get(made["url"]).headers.get("content-encoding") is None


def test_a_zip_bomb_is_kept_as_it_came(tmp_path: Path, provider: Provider) -> None:
    provider.spoil({"kind": "output_gzip", "bytes": 30_000_000})
    with working(tmp_path, provider, max_output_mb=3) as shop:
        made = shop.ended(shop.ask()["id"], "completed", 40)
        assert made["content_type"] == "application/octet-stream" and made["bytes"] < 100_000
        assert not list((tmp_path / "media" / "tmp").iterdir())


def test_what_pads_a_picture_is_no_part_of_it(tmp_path: Path) -> None:
    path, poster = tmp_path / "file", tmp_path / "poster"
    path.write_bytes(png((64, 48)) + bytes(2_000_000))
    assert (looking.inspect(path, poster).width, poster.stat().st_size > 0) == (64, True)


@pytest.mark.parametrize("what", PAGES)
def test_only_what_is_no_file_at_all_is_an_invalid_output(shop: Workshop, provider: Provider, what: str) -> None:
    provider.spoil(_file(PAGES[what]))
    failed = _forward_until_final(shop, shop.ask()["id"])
    assert failed["status"] == "failed" and failed["error"]["code"] == "output_invalid" and failed["files"] == []
    assert shop.row(failed["id"]).possibly_charged


@pytest.mark.parametrize(("kind", "downloads"), [("output_chunked", 1), ("output_unframed", 2), ("output_short", 2)])
def test_a_file_is_fetched_twice_only_when_nothing_says_where_it_ends(
    shop: Workshop, provider: Provider, kind: str, downloads: int
) -> None:
    provider.spoil({"kind": kind})
    made = shop.ended(shop.ask()["id"], "completed")
    assert provider.ledger["downloads"] == downloads
    assert (made["media"]["state"] == "unread") == (kind == "output_short")


def test_an_unframed_file_that_differs_the_second_time_is_not_taken_for_whole(
    shop: Workshop, provider: Provider
) -> None:
    provider.spoil({"kind": "output_short", "times": 1}, {"kind": "output_unframed", "match": {"nth": 2}})
    made = _forward_until_final(shop, shop.ask()["id"])
    assert made["status"] == "completed" and made["media"]["state"] == "read"
    assert made["sha256"] == provider.ledger["ends"][0]["sha256"]


def test_a_file_of_another_kind_is_kept_and_said(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "output_wrong_kind"})
    made = shop.ended(shop.ask()["id"], "completed")
    assert made["content_type"] == "video/mp4" and "video/mp4" in made["media"]["why"]
    assert made["media"]["state"] == "read" and made["poster_url"] and made["duration_s"]
    sound = ODD["mp3"][0]()
    provider.spoil(_file(sound))
    made = shop.ended(shop.ask("video", asset_id=shop.upload(png()))["id"], "completed")
    assert made["content_type"] == "audio/mpeg" and made["media"]["why"] and made["poster_url"] is None


def test_what_could_not_be_read_is_no_reference_and_nothing_is_paid_for_it(shop: Workshop, provider: Provider) -> None:
    provider.spoil(_file(ODD["cut png"][0]()))
    image = shop.ended(shop.ask()["id"], "completed")
    assert image["content_type"] == "image/png" and image["media"]["state"] == "unread"
    provider.spoil({"kind": "output_wrong_kind"})
    other = shop.ended(shop.ask()["id"], "completed")
    provider.spoil()
    before = len(provider.ledger["creates"])
    for source in (image["id"], other["id"]):
        failed = shop.ended(shop.ask("video", image_id=source)["id"], "failed")
        assert failed["error"]["code"] == "source_failed" and not failed["possibly_charged"]
    assert len(provider.ledger["creates"]) == before


def test_every_output_of_a_prediction_is_stored_listed_and_served(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "output_many", "count": 3})
    made = shop.ended(shop.ask()["id"], "completed")
    handed = provider.ledger["ends"][0]["files"]
    assert provider.ledger["downloads"] == 3
    assert [file["sha256"] for file in made["files"]] == handed and len({*handed}) == 3
    assert [file["index"] for file in made["files"]] == [0, 1, 2]
    assert made["files"][0]["url"] == made["url"] and made["sha256"] == handed[0]
    for number, file in enumerate(made["files"]):
        assert file["media"] == {"state": "read", "why": None} and file["width"] == made["width"]
        assert _sha256(httpx.get(file["url"]).content) == handed[number]
        plain = shop.http.get(f"/api/v2/images/{made['id']}/data", params={"file": number})
        assert _sha256(plain.content) == handed[number] and plain.headers["etag"] == f'"{handed[number]}"'
        part = shop.http.get(
            f"/api/v2/images/{made['id']}/data?file={number}", headers={"range": f"bytes={file['bytes'] - 5}-"}
        )
        assert part.status_code == 206 and part.content == plain.content[-5:]
        assert shop.http.get(part.url, headers={"if-none-match": f'"{handed[number]}"'}).status_code == 304
    assert shop.http.get(f"/api/v2/images/{made['id']}/data?file=3").status_code == 404
    for wrong in ("-1", "x", "1.5", "99999999999999999999", ""):
        assert shop.http.get(f"/api/v2/images/{made['id']}/data", params={"file": wrong}).status_code == 422
    listed = shop.http.get("/api/v2/generations").json()["items"][0]
    assert [file["sha256"] for file in listed["files"]] == handed


def test_the_signature_of_a_link_covers_which_file_it_is(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "output_many", "count": 3})
    made = shop.ended(shop.ask()["id"], "completed")
    second = made["files"][1]["url"]
    assert httpx.get(second).status_code == 200
    changed = [
        second.replace("file=1", "file=2"),
        second.replace("file=1", "file=01"),
        second.replace("file=1&", ""),
        second.replace("file=1&", "file=1&file=2&"),
        second.replace("/data?", "/poster?"),
        made["url"].replace("?", "?file=1&"),
        made["url"].replace("?", "?file=0&"),
    ]
    assert {httpx.get(url).status_code for url in changed} <= {403, 422}


def test_of_several_outputs_what_can_be_had_is_kept_and_the_rest_is_said(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "output_many", "count": 3}, {"kind": "output_404", "match": {"every": 3}})
    id = shop.ask()["id"]
    made = _forward_until_final(shop, id)
    assert made["status"] == "completed"
    states = [file["media"]["state"] for file in made["files"]]
    handed = provider.ledger["ends"][0]["files"]
    for file, sha256 in zip(made["files"], handed, strict=True):
        if file["media"]["state"] == "missing":
            assert file["url"] is None and file["sha256"] is None and file["media"]["why"]
        else:
            assert file["sha256"] == sha256
    assert "read" in states


def test_the_first_that_is_stored_is_the_generations_own_when_the_first_is_gone(
    shop: Workshop, provider: Provider
) -> None:
    gone = "http://127.0.0.1:9/out.jpg"
    shape = [gone, "$0", "ftp://files.example/second.png", "$1"]
    provider.spoil({"kind": "output_many", "count": 2}, {"kind": "output_object", "value": shape})
    made = shop.ended(shop.ask()["id"], "completed")
    assert [file["media"]["state"] for file in made["files"]] == ["missing", "read", "missing", "read"]
    handed = provider.ledger["ends"][0]["files"]
    assert [made["files"][at]["sha256"] for at in (1, 3)] == handed and made["sha256"] == handed[0]
    assert _sha256(httpx.get(made["url"]).content) == handed[0] and made["url"] == made["files"][1]["url"]
    assert made["poster_url"] and httpx.get(made["poster_url"]).status_code == 200
    assert shop.http.get(f"/api/v2/images/{made['id']}/data?file=0").status_code == 404
    assert provider.ledger["downloads"] == 2
    assert made["cost_usd"]["actual"] == pytest.approx(2 * 0.039)


def test_what_is_stored_is_not_fetched_again_while_another_output_is_waited_for(
    bench: Workshop, provider: Provider
) -> None:
    provider.spoil({"kind": "output_many", "count": 3}, {"kind": "webhook_lost"})
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.clock.forward(31)
    bench.look("processing")
    provider.spoil({"kind": "output_truncated", "match": {"nth": 1}})
    assert bench.look("storing") == [id] and bench.row(id).status == "storing"
    assert provider.ledger["downloads"] == 3
    bench.clock.forward(2)
    assert bench.look("storing") == [id]
    made = bench.get(id)
    assert made["status"] == "completed" and provider.ledger["downloads"] == 4
    assert [file["sha256"] for file in made["files"]] == provider.ledger["ends"][0]["files"]
    assert made["poster_url"] and bench.row(id).file_name == f"{id}.jpg"


def test_a_second_output_leaves_no_poster_behind_when_the_first_comes_late_and_cannot_be_read(
    bench: Workshop, provider: Provider
) -> None:
    provider.spoil({"kind": "output_many", "count": 2}, {"kind": "webhook_lost"})
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.clock.forward(31)
    bench.look("processing")
    provider.spoil({"kind": "output_truncated", "match": {"nth": 1}})
    bench.look("storing")
    provider.spoil({"kind": "output_garbage", "match": {"nth": 1}})
    bench.clock.forward(2)
    bench.look("storing")
    made = bench.get(id)
    assert [file["media"]["state"] for file in made["files"]] == ["unread", "read"] and made["poster_url"] is None


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_host_in_trouble_is_asked_until_the_output_expires(bench: Workshop, provider: Provider, status: int) -> None:
    provider.spoil({"kind": "webhook_lost"})
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.clock.forward(31)
    bench.look("processing")
    provider.spoil({"kind": "output_404", "status": status})
    for _ in range(12):
        assert bench.look("storing") == [id] and bench.row(id).status == "storing"
        bench.clock.forward(61)
    provider.spoil()
    assert bench.look("storing") == [id] and bench.get(id)["status"] == "completed"


def test_files_stored_before_a_crash_are_the_result_when_the_provider_has_them_no_more(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.spoil({"kind": "webhook_lost"}, {"kind": "output_many", "count": 3})
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.forward(31)
    assert bench.look("processing") == [id]

    async def crash(*_: Any, **__: Any) -> bool:
        raise RuntimeError("a crash")

    with monkeypatch.context() as patched:
        patched.setattr(leased, "move", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            bench.look("storing")
    provider.spoil({"kind": "output_404"})
    bench.forward(3700)
    assert bench.look("storing") == [id]
    made = bench.get(id)
    assert made["status"] == "completed" and provider.ledger["downloads"] == 3
    assert [file["media"]["state"] for file in made["files"]] == ["read"] * 3


def test_more_outputs_than_are_stored_are_said_to_be_missing(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "output_many", "count": 66})
    made = shop.ended(shop.ask()["id"], "completed", 60)
    states = [file["media"]["state"] for file in made["files"]]
    assert states == ["read"] * 64 + ["missing"] * 2
    assert made["cost_usd"]["actual"] == pytest.approx(66 * 0.039)


def test_each_output_is_counted_where_the_price_is_per_output(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "output_many", "count": 3})
    made = shop.ended(shop.ask()["id"], "completed")
    assert made["cost_usd"] == {"estimated": 0.039, "actual": pytest.approx(0.117)}
    campaign = shop.http.get(f"/api/v2/campaigns/{shop.campaign_id}").json()
    assert campaign["spent_usd"] == pytest.approx(0.117)
    (usage,) = shop.http.get("/api/v2/usage").json()["items"]
    assert usage["bytes"] == sum(file["bytes"] for file in made["files"])


def test_deleting_a_generation_removes_all_its_files(shop: Workshop, provider: Provider) -> None:
    witness(shop.folder)
    provider.spoil({"kind": "output_many", "count": 3})
    made = shop.ended(shop.ask()["id"], "completed")
    stored = shop.folder / "media"
    assert len([*stored.glob(f"??/{made['id']}*")]) == 4  # with the poster
    assert shop.http.delete(f"/api/v2/generations/{made['id']}").status_code == 204
    until(lambda: shop.run(tidy.empty_trash(shop.ctx)) == 0 and not [*stored.glob(f"??/{made['id']}*")])


def test_a_backup_has_all_files_and_tells_of_one_that_is_lost(tmp_path: Path, provider: Provider) -> None:
    provider.spoil({"kind": "output_many", "count": 3})
    with working(tmp_path, provider) as shop:
        made = shop.ended(shop.ask()["id"], "completed")
        settings: Settings = shop.ctx.settings
        kept = take(settings, tmp_path / "first")
        assert kept.files == 4 and kept.lost == []
        (third,) = (tmp_path / "media").glob(f"??/{made['id']}-2.jpg")
        content = third.read_bytes()
        third.unlink()
        assert take(settings, tmp_path / "second").lost == [third.name]
        third.write_bytes(b"other")
        assert take(settings, tmp_path / "third").lost == [third.name]
        third.write_bytes(content)


def test_an_object_output_is_searched_for_its_files(shop: Workshop, provider: Provider) -> None:
    shape = {
        "seed": "4711",
        "device": "cuda",
        "caption": "a fox, at https or so",
        "result": [{"image": "$0", "score": 0.5}, None, {"deeper": {"mask": " $1 \n", "again": "$0"}}],
    }
    provider.spoil({"kind": "output_many", "count": 2}, {"kind": "output_object", "value": shape})
    made = shop.ended(shop.ask()["id"], "completed")
    assert [file["sha256"] for file in made["files"]] == provider.ledger["ends"][0]["files"]
    assert provider.ledger["downloads"] == 2


def test_inline_files_are_read_however_they_are_written(shop: Workshop, provider: Provider) -> None:
    text = base64.b64encode(still("PNG")).decode()
    shape = [
        f"data:image/png;base64,{text}",
        f"DATA:image/png;charset=utf-8;BASE64,{text[:70]}\r\n{text[70:].rstrip('=')} \n",
        "data:,hello%20there",
        "data:image/png;base64,",
    ]
    provider.spoil({"kind": "output_object", "value": shape})
    made = _forward_until_final(shop, shop.ask()["id"])
    assert [file["media"]["state"] for file in made["files"]] == ["read", "read", "unread", "missing"]
    assert made["files"][0]["sha256"] == made["files"][1]["sha256"] == _sha256(still("PNG"))
    assert httpx.get(made["files"][2]["url"]).content == b"hello there"
    shop.finished = False  # none of these files is one that the emulator made


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (None, []),
        (5, []),
        ("a caption", []),
        ("Data: 5, 6", []),
        ("note: see below", []),
        ("https://a.example/x y", []),
        (" HTTPS://a.example/x.png\n", ["HTTPS://a.example/x.png"]),
        ("file:/etc/passwd", ["file:/etc/passwd"]),
        ({"image": "https://a.example/1", "seed": "4711"}, ["https://a.example/1"]),
        ([["https://a.example/1"], {"b": "https://a.example/2"}], ["https://a.example/1", "https://a.example/2"]),
        (["https://a.example/1", "https://a.example/1"], ["https://a.example/1"]),
        ({"points": [[1, 2]] * 50_000, "image": "https://a.example/1"}, ["https://a.example/1"]),
        ([0.5] * 60_000 + ["https://a.example/1"], ["https://a.example/1"]),
        ("data:;base64,AAAA", ["data:;base64,AAAA"]),
        ("data:base64,AAAA", ["data:base64,AAAA"]),
        ("DATA:IMAGE/PNG;BASE64,AAAA", ["DATA:IMAGE/PNG;BASE64,AAAA"]),
    ],
)
def test_files_are_told_from_other_words(output: Any, found: list[str]) -> None:
    assert outputs.find(output) == found


def test_the_search_has_bounds() -> None:
    deep: Any = "https://a.example/deep"
    for _ in range(5000):
        deep = [deep]
    assert outputs.find(deep) == []
    assert len(outputs.find([f"https://a.example/{n}" for n in range(100_000)])) == outputs.MOST_FOUND
    assert outputs.find(["word"] * 1_000_000 + ["https://a.example/late"]) == []


@pytest.mark.parametrize(
    ("uri", "content"),
    [
        ("data:image/png;base64,aGVsbG8=", b"hello"),
        ("data:image/png;base64,aGVsbG8", b"hello"),
        ("data:;BASE64 ,aGVs\nbG8= \t", b"hello"),
        ("DATA:Base64,aGVsbG8=", b"hello"),
        ("data:image/png;base64,aGVsbG8%3D", b"hello"),
        ("DATA:application/x;a=b;base64,-_-_", base64.b64decode("+/+/")),
        ("data:,a%20b%00", b"a b\0"),
        ("data:text/plain;charset=utf-8,%C3%A4", "ä".encode()),
    ],
)
def test_data_uris_are_read_as_people_write_them(uri: str, content: bytes) -> None:
    assert data_uris.decode(uri) == content


@pytest.mark.parametrize("text", ["a", "a=b=", "????", "aGVsbG8=aGVsbG8="])
def test_base64_that_is_none_is_said(text: str) -> None:
    with pytest.raises(InvalidMedia):
        data_uris.decode(f"data:image/png;base64,{text}")


def test_the_python_client_knows_and_brings_every_file(shop: Workshop, provider: Provider, tmp_path: Path) -> None:
    shape = ["$0", "ftp://nowhere.example/x", "$1"]
    provider.spoil({"kind": "output_many", "count": 2}, {"kind": "output_object", "value": shape})
    id = shop.ask()["id"]
    shop.ended(id, "completed")
    with Client(shop.origin) as client:
        made = client.generation(id)
        assert made.media.state == "read" and [file.media.state for file in made.files] == ["read", "missing", "read"]
        first = client.download(made, tmp_path)
        third = client.download(id, tmp_path, file=2)
        assert first.name == f"{id}.jpg" and third.name == f"{id}-2.jpg"
        assert _sha256(third.read_bytes()) == made.files[2].sha256
        for missing in (1, 7):
            with pytest.raises(DownloadFailed):
                client.download(made, tmp_path, file=missing)


def test_the_command_line_brings_every_file(shop: Workshop, provider: Provider, tmp_path: Path) -> None:
    provider.spoil({"kind": "output_many", "count": 2})
    out = tmp_path / "out"
    command = ["generate", "image", "--campaign", shop.campaign_id, "--prompt", "a fox", "--out", out]
    command += ["--url", shop.origin]
    told = commands.run_text(*command, "--json", environment=environment({}))
    files = json.loads(told.stdout)["files"]
    assert [_sha256(Path(each["file"]).read_bytes()) for each in files] == [each["sha256"] for each in files]
    told = commands.run_text(*command, environment=environment({}))
    assert len(told.stdout.split()) == 2


def test_the_openai_face_gives_every_file(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "output_many", "count": 2})
    body = {"prompt": "a fox", "campaign_id": shop.campaign_id}
    found = shop.http.post("/v1/images/generations", json=body).json()["data"]
    handed = provider.ledger["ends"][0]["files"]
    assert [_sha256(base64.b64decode(each["b64_json"])) for each in found] == handed
    found = shop.http.post("/v1/images/generations", json=body | {"response_format": "url"}).json()["data"]
    assert [_sha256(httpx.get(each["url"]).content) for each in found] == handed


def test_several_films_are_stored_with_their_lengths(tmp_path: Path) -> None:
    with emulating(replace(TINY)) as provider, working(tmp_path, provider) as shop:
        provider.spoil({**_file(film("mp4", "libx264"), "out.mp4")}, {"kind": "output_many", "count": 2})
        made = shop.ended(shop.ask("video", asset_id=shop.upload(png()))["id"], "completed")
        assert [file["duration_s"] for file in made["files"]] == [pytest.approx(1.0)] * 2
        (usage,) = shop.http.get("/api/v2/usage").json()["items"]
        assert usage["seconds"] == pytest.approx(2.0) and made["cost_usd"]["actual"] == pytest.approx(0.5)


@pytest.mark.story
@pytest.mark.timeout(180)
@pytest.mark.parametrize("nth", range(3))
def test_a_kill_between_two_files_loses_none_and_fetches_none_twice(nth: int) -> None:
    case = next(each for each in CASES if each.story.__name__ == "between_files")
    _, found = play(case, round=nth)
    assert not found, found


def test_what_was_completed_before_has_one_file_that_was_read(shop: Workshop) -> None:
    made = shop.ended(shop.ask()["id"], "completed")
    old = "UPDATE generations SET media_state = NULL, media_why = NULL, more_files = NULL"
    shop.run(shop.ctx.db.write(lambda tx: tx.run(old)))
    assert shop.get(made["id"]) == made and len(made["files"]) == 1


def test_an_event_says_the_same_whenever_it_is_told(shop: Workshop, provider: Provider) -> None:
    provider.spoil(_file(b"neither read nor known"), {"kind": "output_many", "count": 2})
    id = shop.ask()["id"]
    shop.ended(id, "completed")
    told = shop.http.get(f"/api/v2/generations/{id}/events").text
    bodies = [json.loads(line[6:])["data"] for line in told.splitlines() if line.startswith("data: {")]
    first, last = bodies[0], bodies[-1]
    assert first["status"] == "processing" and first["files"] == [] and first["media"]["state"] == "read"
    assert last["status"] == "completed" and len(last["files"]) == 2 and last["media"]["state"] == "unread"


def test_no_poster_of_a_try_that_broke_off_stays(bench: Workshop, provider: Provider) -> None:
    id = bench.ask()["id"]
    bench.submit_next()
    bench.forward(11)
    bench.look("processing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leased, "move", _dies)
        for _ in range(LAST_LOOK - 1):
            with pytest.raises(ZeroDivisionError):
                bench.look("storing")
            bench.forward(3600)
    (poster,) = (bench.folder / "media").rglob(filing.poster(id))
    bench.look("storing")
    assert bench.get(id)["media"]["state"] == "unread" and not poster.exists()


async def _dies(*_: Any, **__: Any) -> bool:
    """As a process that is killed before its row says so."""
    raise ZeroDivisionError
