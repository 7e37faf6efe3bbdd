"""The whole service over a store that has no paths: whatever works over a folder works there, and leaves nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from auditor import creates_of, witness
from elsewhere import Elsewhere
from emulating import Provider, emulating, png
from test_backup import assert_whole, settings_of
from workshop import Workshop, working

from backend.backup import restoring, taking
from backend.core import filing
from backend.core.errors import ProviderRefused
from backend.steps import leased, references
from backend.storage import Spool, Usage
from backend.upkeep import orphans, tidy

PUBLIC = "https://objects.example.com"


@pytest.fixture
def away(tmp_path: Path) -> Elsewhere:
    return Elsewhere(Spool(tmp_path / "spool"))


@pytest.fixture
def shop(tmp_path: Path, provider: Provider, away: Elsewhere) -> Iterator[Workshop]:
    with working(tmp_path, provider, away=away) as shop:
        yield shop
    assert os.listdir(tmp_path / "spool") == [], "a copy was left behind"


@pytest.fixture
def bench(tmp_path: Path, provider: Provider, away: Elsewhere) -> Iterator[Workshop]:
    provider.spoil({"kind": "webhook_lost"})
    with working(tmp_path, provider, worker=False, away=away) as bench:
        bench.finished = False
        yield bench
    assert os.listdir(tmp_path / "spool") == [], "a copy was left behind"


def made(shop: Workshop, kind: str = "image", **wanted: Any) -> dict[str, Any]:
    return shop.ended(shop.ask(kind, **wanted)["id"], "completed")


def started_from(provider: Provider, id: str) -> bytes:
    """The picture the provider was given for a generation, as its model fetches it."""
    (create,) = creates_of(provider.ledger, id)
    (given,) = create["input"].get("image_input") or [create["input"]["start_image"]]
    return provider.http.get(f"{given}/download").content


def test_an_image_and_a_video_are_stored_and_shown_in_ranges(shop: Workshop, away: Elsewhere) -> None:
    video = made(shop, "video", prompt="a red kite")
    for one in (video, shop.get(video["source"]["image_id"])):
        data = shop.http.get(one["url"])
        name = next(name for name in away.objects if name.startswith(one["id"]) and "poster" not in name)
        assert data.content == away.objects[name] and data.headers["content-type"] == one["content_type"]
        assert (
            hashlib.sha256(data.content).hexdigest() == one["sha256"] and f'"{one["sha256"]}"' == data.headers["etag"]
        )
        part = shop.http.get(one["url"], headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, data.content[5:10])
        assert part.headers["content-range"] == f"bytes 5-9/{one['bytes']}"
        head = shop.http.head(one["url"])
        assert (head.content, head.headers["content-length"]) == (b"", str(one["bytes"]))
        assert shop.http.get(one["url"], headers={"if-none-match": data.headers["etag"]}).status_code == 304
        assert shop.http.get(one["poster_url"]).content == away.objects[filing.poster(one["id"])]


def test_uploads_videos_and_their_frames_are_references(shop: Workshop, provider: Provider, away: Elsewhere) -> None:
    asset = shop.upload(png())
    video = made(shop, "video", asset_id=asset)
    assert started_from(provider, video["id"]) == png() == shop.http.get(f"/api/v2/assets/{asset}/data").content
    for frame in ("first", "last"):
        image = made(shop, video_id=video["id"], frame=frame)
        kept = away.objects[filing.frame(video["id"], frame)]
        assert started_from(provider, image["id"]) == kept
        assert shop.http.get(f"/api/v2/videos/{video['id']}/frame/{frame}").content == kept
    film = next(name for name in away.objects if name.startswith(video["id"]) and name.endswith(".mp4"))
    assert away.lent.count(film) == 2, "once for each frame, and never to be shown"


def test_the_openai_face_takes_and_gives_files(shop: Workshop, provider: Provider, away: Elsewhere) -> None:
    answer = shop.http.post("/v1/images/generations", json={"prompt": "a red kite"}).json()
    content = base64.b64decode(answer["data"][0]["b64_json"])
    assert content in away.objects.values()
    form = {"prompt": "it moves", "model": "kwaivgi/kling-v2.1"}
    video = shop.http.post("/v1/videos", data=form, files={"input_reference": ("a.png", png())}).json()
    shop.ended(video["id"].removeprefix("video_"), "completed")
    assert png() in away.objects.values()


@pytest.mark.parametrize("trouble", ["gone", "too large", "file store away"])
def test_what_cannot_be_shown_to_the_provider_says_so_or_goes_as_text(
    bench: Workshop, provider: Provider, away: Elsewhere, trouble: str
) -> None:
    row = bench.row(bench.ask("video", asset_id=bench.upload(png()))["id"])
    (name,) = away.objects
    if trouble == "file store away":

        async def refuses(*_: object) -> str:
            raise ProviderRefused("There is no file store.")

        bench.ctx.providers["replicate"].uploads.upload = refuses  # type: ignore[method-assign]
        (uri,), _ = bench.run(references.resolve(bench.ctx, row))
        assert uri == f"data:image/png;base64,{base64.b64encode(png()).decode()}"
        return
    kept = away.objects.pop(name)
    if trouble == "too large":
        away.objects[name] = bytes(101 << 20)
    says = {"gone": "not in the storage", "too large": "larger than the provider takes"}[trouble]
    with pytest.raises(ProviderRefused, match=says):
        bench.run(references.resolve(bench.ctx, row))
    assert away.lent == [], "nothing is copied for that"
    away.objects[name] = kept


def test_a_store_that_is_public_is_what_the_provider_fetches_from(
    bench: Workshop, provider: Provider, away: Elsewhere
) -> None:
    row = bench.row(bench.ask("video", asset_id=bench.upload(png()))["id"])
    away.public = PUBLIC
    (name,) = away.objects
    assert bench.run(references.resolve(bench.ctx, row)) == ([f"{PUBLIC}/{name}"], None)
    assert (provider.ledger["files"], away.lent) == (0, [])


def test_what_was_stored_before_a_crash_is_the_result(
    bench: Workshop, provider: Provider, away: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = bench.ask()["id"]
    bench.submit_next()
    bench.forward(11)
    bench.look("processing")

    async def dies(*_: Any, **__: Any) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(leased, "move", dies)
        with pytest.raises(ZeroDivisionError):
            bench.look("storing")
    assert len(away.objects) == 2
    provider.spoil({"kind": "output_404"})
    bench.forward(3700)
    bench.look("storing")
    assert bench.ended(id, "completed")["media"]["state"] == "read"
    assert provider.ledger["downloads"] == 1


def test_a_deletion_takes_the_files_with_it_and_the_sweep_what_has_no_row(
    shop: Workshop, away: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "SETTLE_S", 0)
    witness(shop.folder)
    image, asset = made(shop), shop.upload(png())
    kept = set(away.objects)
    video = made(shop, "video", image_id=image["id"])
    made_of_it = made(shop, video_id=video["id"])
    orphan = f"{shop.ctx.new_id()}.png"
    away.objects[orphan] = b"of a crash"
    assert shop.run(orphans.sweep_orphans(shop.ctx)) == orphans.Swept(1, 1)
    for id in (made_of_it["id"], video["id"]):
        assert shop.http.delete(f"/api/v2/generations/{id}").status_code == 204
    shop.run(tidy.tidy(shop.ctx))
    assert set(away.objects) == kept and any(name.startswith(asset) for name in kept)
    assert shop.run(shop.ctx.spool.usage()) == Usage(0, 0)


def test_a_backup_is_taken_from_and_put_back_into_such_a_store(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No user is offered that yet: it shows that a backup asks for no paths."""
    first, second = Elsewhere(Spool(tmp_path / "spool")), Elsewhere(Spool(tmp_path / "again"))
    with working(tmp_path / "own", provider, away=first) as shop:
        video = made(shop, "video", asset_id=shop.upload(png()))
        made(shop, video_id=video["id"])
        monkeypatch.setattr(taking, "open_storage", lambda url: (first.spool, first))
        kept = taking.take(settings_of(tmp_path / "own"), tmp_path / "backup")
        assert (kept.files, kept.lost) == (len(first.objects), [])
    assert_whole(tmp_path / "backup")
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "backup").rglob("*") if file.is_file()}
    assert modes == {0o600}, "its owner's alone"
    monkeypatch.setattr(restoring, "open_storage", lambda url: (second.spool, second))
    for file in ("second", "first"):  # one that was brought before is known again
        if file == "first":
            (tmp_path / "restored" / "reelhook.db").unlink()
        assert restoring.restore(settings_of(tmp_path / "restored"), tmp_path / "backup").files == kept.files
        assert second.objects == first.objects
    with emulating() as another, working(tmp_path / "restored", another, away=second) as shop:
        assert shop.http.get(shop.get(video["id"])["url"]).content in first.objects.values()
        assert os.listdir(tmp_path / "spool") == os.listdir(tmp_path / "again") == []
