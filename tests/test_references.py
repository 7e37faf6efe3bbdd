"""What a source becomes for the provider: in order its own fresh output, our signed link, an upload, a data URI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from emulating import Provider, png
from workshop import Workshop, working

from backend.core.errors import ProviderRefused
from backend.steps import references

PUBLIC = "https://reelhook.example.com"


def finished(bench: Workshop, provider: Provider, id: str) -> str:
    """Take a queued generation through every step."""
    bench.submit_next()
    bench.reach(id, "processing", "storing")
    provider.ended(bench.row(id).provider_id or "")
    bench.clock.forward(11)
    bench.look("processing")
    bench.look("storing")
    bench.ended(id, "completed")
    return id


def resolved(bench: Workshop, id: str) -> tuple[list[str], str | None]:
    return bench.run(references.resolve(bench.ctx, bench.row(id)))


def stored(bench: Workshop, id: str) -> Path:
    (found,) = (bench.folder / "media").rglob(f"{id}.*")
    return found


@pytest.fixture
def bench(bench: Workshop, provider: Provider) -> Workshop:
    provider.spoil({"kind": "webhook_lost"})
    bench.finished = False
    return bench


def test_a_fresh_output_of_the_same_provider_goes_by_its_own_url(bench: Workshop, provider: Provider) -> None:
    image = finished(bench, provider, bench.ask()["id"])
    assert resolved(bench, bench.ask("video", image_id=image)["id"]) == (bench.row(image).outputs, None)
    assert provider.ledger["files"] == 0


def test_an_output_about_to_expire_goes_by_upload(bench: Workshop, provider: Provider) -> None:
    image = finished(bench, provider, bench.ask()["id"])
    video = bench.ask("video", image_id=image)["id"]
    bench.clock.forward(51 * 60)
    (url,), _ = resolved(bench, video)
    assert provider.ledger["files"] == 1 and url not in bench.row(image).outputs
    assert provider.http.get(f"{url}/download").content == stored(bench, image).read_bytes()


def test_a_service_that_the_world_can_reach_gives_a_link_that_needs_no_key(tmp_path: Path, provider: Provider) -> None:
    with working(tmp_path, provider, worker=False, webhooks=False, ngrok_url=PUBLIC) as bench:
        bench.finished = False
        asset = bench.upload(png())
        (url,), _ = resolved(bench, bench.ask("video", asset_id=asset)["id"])
        assert url.startswith(f"{PUBLIC}/api/v2/assets/{asset}/data?")
        expires = int(parse_qs(urlsplit(url).query)["exp"][0])
        assert 0 < expires - bench.clock() / 1000 <= 7200
        answer = httpx.get(url.replace(PUBLIC, bench.origin))
        assert answer.status_code == 200 and answer.content == png()
        assert provider.ledger["files"] == 0


def test_a_link_to_a_frame_leads_to_that_frame(tmp_path: Path, provider: Provider) -> None:
    provider.spoil({"kind": "webhook_lost"})
    with working(tmp_path, provider, worker=False) as bench:
        bench.finished = False
        video = finished(bench, provider, bench.ask("video", asset_id=bench.upload(png()))["id"])
        bench.ctx.settings = bench.ctx.settings.model_copy(update={"ngrok_url": PUBLIC})
        shown = {}
        for frame in ("first", "last"):
            (url,), _ = resolved(bench, bench.ask(video_id=video, frame=frame)["id"])
            answer = httpx.get(url.replace(PUBLIC, bench.origin))
            assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
            shown[frame] = answer.content
        assert shown["first"] != shown["last"]


def test_a_frame_is_made_once(bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    video = finished(bench, provider, bench.ask("video", asset_id=bench.upload(png()))["id"])
    id = bench.ask(video_id=video)["id"]
    first, _ = resolved(bench, id)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(bench.ctx.cage, "frame", never)
    second, _ = resolved(bench, id)
    downloads = {provider.http.get(f"{url}/download").content for url in (*first, *second)}
    assert len(downloads) == 1


def test_a_provider_whose_file_store_is_away_is_tried_again(bench: Workshop, provider: Provider) -> None:
    id = bench.ask("video", asset_id=bench.upload(png()))["id"]
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.base_url = "http://127.0.0.1:9/v1"
    bench.submit_next()
    row = bench.row(id)
    assert (row.status, row.polls, row.lease_owner, row.claimed_at) == ("queued", 1, None, None)
    replicate.base_url = f"{provider.server.origin}/v1"
    bench.clock.forward(5)
    assert bench.submit_next() == [id] and bench.stage(id) == "processing"


@pytest.mark.parametrize("trouble", ["gone", "too large", "broken"])
def test_a_source_that_cannot_be_shown_is_a_failure_that_says_so(
    bench: Workshop, provider: Provider, trouble: str
) -> None:
    video = finished(bench, provider, bench.ask("video", asset_id=bench.upload(png()))["id"])
    id = bench.ask(video_id=video)["id"]
    if trouble == "gone":
        stored(bench, video).unlink()
    elif trouble == "broken":
        stored(bench, video).write_bytes(b"\x00\x00\x00\x18ftypmp42")
    else:
        known = bench.ctx.catalog
        facts = {name: replace(each, file_limit_mb=0) for name, each in known.providers.items()}
        bench.ctx.catalog = replace(known, providers=facts)
    with pytest.raises(ProviderRefused):
        resolved(bench, id)
    sent = len(provider.ledger["creates"])
    bench.submit_next()
    assert bench.ended(id, "failed")["error"]["code"] == "source_failed"
    assert len(provider.ledger["creates"]) == sent
