"""From what a generation is made: prompts, images, videos, assets, and what becomes of it when those fail."""

from __future__ import annotations

import pytest
from auditor import creates_of
from emulating import Provider, png, until
from workshop import Workshop

from backend.db import assets


def uploaded(provider: Provider, url: str) -> bytes:
    """What the provider's file store has behind a URL."""
    return provider.http.get(f"{url}/download").content


def test_a_prompt_becomes_an_image(shop: Workshop, provider: Provider) -> None:
    made = shop.ended(shop.ask(prompt="a red kite")["id"], "completed")
    assert made["url"] and made["bytes"] > 0 and made["width"] and made["error"] is None
    (create,) = creates_of(provider.ledger, made["id"])
    assert create["input"] == {"prompt": "a red kite"}
    assert shop.http.get(made["url"]).content[:3] == b"\xff\xd8\xff"


def test_a_video_of_a_prompt_waits_for_the_start_image_made_on_the_way(shop: Workshop, provider: Provider) -> None:
    asked = shop.ask("video", prompt="a red kite")
    assert asked["stage"] == "waiting" and asked["status"] == "pending"
    video = shop.ended(asked["id"], "completed")
    image = shop.get(video["source"]["image_id"])
    assert (image["status"], image["kind"], image["prompt"]) == ("completed", "image", "a red kite")
    assert image["completed_at"] <= video["submitted_at"]
    (create,) = creates_of(provider.ledger, video["id"])
    assert create["input"]["start_image"].startswith(provider.server.origin)


def test_a_video_of_an_unfinished_image_waits_for_it(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "delay", "on": "run", "delay_s": 0.5, "match": {"prompt_contains": "slow"}})
    image = shop.ask(prompt="slow")
    video = shop.ask("video", image_id=image["id"], prompt="it moves")
    assert video["stage"] == "waiting"
    shop.ended(video["id"], "completed")
    assert shop.get(image["id"])["completed_at"] <= shop.get(video["id"])["submitted_at"]


@pytest.mark.parametrize("frame", ["first", "last", None])
def test_an_image_of_a_video_starts_from_one_of_its_frames(shop: Workshop, provider: Provider, frame: str) -> None:
    video = shop.ended(shop.ask("video", prompt="a red kite")["id"], "completed")
    choice = {"frame": frame} if frame else {}
    image = shop.ended(shop.ask(video_id=video["id"], prompt="as a drawing", **choice)["id"], "completed")
    (create,) = creates_of(provider.ledger, image["id"])
    (url,) = create["input"]["image_input"]
    content = uploaded(provider, url)
    assert content[:3] == b"\xff\xd8\xff"
    assert list((shop.folder / "media").rglob(f"{video['id']}*{frame or 'last'}*"))


def test_a_video_starts_from_an_asset(shop: Workshop, provider: Provider) -> None:
    asset = shop.upload(png())
    video = shop.ended(shop.ask("video", asset_id=asset)["id"], "completed")
    (create,) = creates_of(provider.ledger, video["id"])
    assert uploaded(provider, create["input"]["start_image"]) == png()
    assert provider.ledger["files"] == 1


def test_a_video_ends_on_an_image_in_pro_mode_alone(shop: Workshop, provider: Provider) -> None:
    first, last = shop.upload(png(colour="#ff0000")), shop.upload(png(colour="#00ff00"))
    refused = shop.try_to_ask("video", asset_id=first, end_image={"asset_id": last})
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == "end_image"
    video = shop.ended(shop.ask("video", asset_id=first, end_image={"asset_id": last}, mode="pro")["id"], "completed")
    (create,) = creates_of(provider.ledger, video["id"])
    assert uploaded(provider, create["input"]["end_image"]) == png(colour="#00ff00")
    assert uploaded(provider, create["input"]["start_image"]) == png(colour="#ff0000")


def test_an_unfinished_end_image_is_waited_for_too(shop: Workshop) -> None:
    start, end = shop.ask(prompt="the start"), shop.ask(prompt="the end")
    wanted = {"image_id": start["id"], "end_image": {"image_id": end["id"]}, "mode": "pro"}
    video = shop.ended(shop.ask("video", **wanted)["id"], "completed")
    for source in (start, end):
        assert shop.get(source["id"])["completed_at"] <= video["submitted_at"]


def test_copies_share_a_batch_and_one_start_image(shop: Workshop, provider: Provider) -> None:
    items = shop.ask("video", prompt="kites", copies=4)
    ended = [shop.ended(item["id"], "completed") for item in items]
    assert len({item["id"] for item in ended}) == 4
    assert len({item["batch_id"] for item in ended}) == 1 and ended[0]["batch_id"]
    assert len({item["source"]["image_id"] for item in ended}) == 1
    assert len(provider.ledger["creates"]) == 5


def test_what_waits_for_a_failed_source_fails_with_it(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "failed", "error": "no", "match": {"model": "google/nano-banana"}})
    video = shop.ended(shop.ask("video", prompt="kites")["id"], "failed")
    assert video["error"]["code"] == "source_failed"
    assert creates_of(provider.ledger, video["id"]) == []


def test_a_chain_of_waiting_generations_fails_as_a_whole(shop: Workshop, provider: Provider) -> None:
    bad = {"match": {"prompt_contains": "bad"}}
    provider.spoil({"kind": "failed", "error": "no", **bad}, {"kind": "delay", "delay_s": 0.5, **bad})
    first = shop.ask(prompt="bad")
    second = shop.ask("video", image_id=first["id"], prompt="fine")
    third = shop.ask(video_id=second["id"], prompt="fine")
    assert shop.ended(third["id"], "failed")["error"]["code"] == "source_failed"
    assert len(provider.ledger["creates"]) == 1


def test_what_waits_for_a_canceled_source_fails_with_it(bench: Workshop) -> None:
    video = bench.ask("video", prompt="kites")
    assert bench.cancel(video["source"]["image_id"]).json()["status"] == "canceled"
    assert bench.ended(video["id"], "failed")["error"]["code"] == "source_failed"


def test_a_retried_video_retries_the_start_image_that_failed(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "failed", "error": "no", "times": 1})
    failed = shop.ended(shop.ask("video", prompt="kites")["id"], "failed")
    again = shop.ended(shop.retry(failed["id"])["id"], "completed")
    image = shop.get(again["source"]["image_id"])
    assert again["retry_of"] == failed["id"] and image["retry_of"] == failed["source"]["image_id"]
    assert image["status"] == "completed"


def test_a_retried_video_keeps_the_start_image_that_is_there(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "failed", "error": "no", "times": 1, "match": {"model": "kwaivgi/kling-v2.1"}})
    failed = shop.ended(shop.ask("video", prompt="kites")["id"], "failed")
    again = shop.ended(shop.retry(failed["id"])["id"], "completed")
    assert again["source"] == failed["source"]
    assert len(provider.ledger["creates"]) == 3


def test_a_retried_video_waits_for_an_end_image_that_is_unfinished(bench: Workshop) -> None:
    end = bench.ask(prompt="the end")
    wanted = {"asset_id": bench.upload(png()), "end_image": {"image_id": end["id"]}, "mode": "pro"}
    video = bench.ask("video", **wanted)
    bench.cancel(video["id"])
    assert bench.retry(video["id"])["stage"] == "waiting"
    bench.finished = False


def test_a_retried_video_retries_the_end_image_that_failed(shop: Workshop, provider: Provider) -> None:
    bad = {"times": 1, "match": {"prompt_contains": "the end"}}
    provider.spoil({"kind": "failed", "error": "no", **bad}, {"kind": "delay", "delay_s": 2, **bad})
    asset = shop.upload(png())  # first: it may take longer than the end image, which must not have failed yet
    end = shop.ask(prompt="the end")
    wanted = {"asset_id": asset, "end_image": {"image_id": end["id"]}, "mode": "pro"}
    failed = shop.ended(shop.ask("video", **wanted)["id"], "failed")
    again = shop.ended(shop.retry(failed["id"])["id"], "completed")
    assert again["source"]["end_image"]["image_id"] != end["id"]


def test_a_source_that_was_deleted_meanwhile_is_a_failure_that_says_so(bench: Workshop, provider: Provider) -> None:
    asset = bench.upload(png())
    asked = bench.ask("video", asset_id=asset)
    assert bench.http.delete(f"/api/v2/assets/{asset}").status_code == 409
    bench.run(bench.ctx.db.write(lambda tx: assets.delete(tx, asset)))
    for file in (bench.folder / "media").rglob(f"{asset}*"):
        file.unlink()
    bench.submit_next()
    assert bench.get(asked["id"])["error"]["code"] == "source_failed"
    assert provider.ledger["creates"] == []


def test_a_large_reference_goes_by_upload_and_a_refused_upload_of_a_small_one_by_data_uri(
    shop: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.core.errors import ProviderRefused

    async def refuse(*_: object) -> str:
        raise ProviderRefused("no files today")

    monkeypatch.setattr(shop.ctx.providers["replicate"].uploads, "upload", refuse)
    video = shop.ended(shop.ask("video", asset_id=shop.upload(png()))["id"], "completed")
    (create,) = creates_of(provider.ledger, video["id"])
    assert create["input"]["start_image"].startswith("data:image/png;base64,")
    until(lambda: provider.ledger["files"] == 0)
