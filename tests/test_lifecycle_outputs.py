"""What the provider hands out is checked, stored for good, or refused; what was paid for is not given up lightly."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from emulating import TINY, Provider, emulating, png, until
from workshop import Workshop, working

from backend.disk import room
from backend.http import downloads
from backend.media import cage
from backend.providers.replicate.answers import outcome
from backend.steps import leased
from backend.storage import folder as folders
from backend.storage import spool


def _through_retries(shop: Workshop, id: str) -> dict[str, Any]:
    """Its end, with the pauses between the tries left out."""
    shop.reach(id, "storing", "failed", "completed")

    def final() -> dict[str, Any] | None:
        now = shop.get(id)
        if now["status"] in ("completed", "failed"):
            return now
        row = shop.row(id)
        if row.lease_owner is None and row.due_at > shop.clock():
            shop.forward((row.due_at - shop.clock()) / 1000 + 0.001)
        return None

    found: dict[str, Any] = until(final)
    return found


ONCE = [
    {"kind": "output_404"},
    {"kind": "output_truncated"},
    {"kind": "output_truncated", "chunked": True},
    {"kind": "output_html"},
]


def _name(fault: dict[str, Any]) -> str:
    return "-".join(map(str, fault.values()))


@pytest.mark.parametrize("fault", ONCE, ids=_name)
def test_an_output_that_is_bad_once_is_fetched_again(shop: Workshop, provider: Provider, fault: dict[str, Any]) -> None:
    provider.spoil({**fault, "times": 1})
    id = shop.ask()["id"]
    assert _through_retries(shop, id)["status"] == "completed"
    assert provider.ledger["downloads"] == 2 and len(provider.ledger["creates"]) == 1


@pytest.mark.hazard(10, 11)
@pytest.mark.parametrize("fault", ONCE, ids=_name)
@pytest.mark.parametrize("what", ["image", "video"])
def test_an_output_that_stays_bad_is_a_failure_and_never_a_result(
    shop: Workshop, provider: Provider, fault: dict[str, Any], what: str
) -> None:
    model = {"match": {"model": "kwaivgi/kling-v2.1" if what == "video" else "google/nano-banana"}}
    provider.spoil({**fault, **model})
    source = {"asset_id": shop.upload(png())} if what == "video" else {}
    id = shop.ask(what, **source)["id"]
    failed = _through_retries(shop, id)
    assert failed["status"] == "failed" and failed["url"] is None
    assert failed["error"]["code"] == ("output_expired" if fault["kind"] == "output_404" else "output_invalid")
    assert shop.row(id).possibly_charged
    assert provider.ledger["downloads"] >= 4


@pytest.mark.hazard(7)
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "output_other_host", "url": "http://127.0.0.1:9/out.jpg"},
        {"kind": "output_other_host", "url": "https://replicate.delivery.example/out.png"},
        {"kind": "output_other_host", "url": "file:///etc/passwd"},
        {"kind": "output_other_host", "url": "http://169.254.169.254/latest/meta-data"},
        {"kind": "output_empty", "value": None},
        {"kind": "output_empty", "value": []},
        {"kind": "output_empty", "value": ""},
        {"kind": "output_object", "value": {"caption": "a fox", "device": "cuda", "seed": "4711"}},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('url', fault.get('value'))}",
)
def test_what_cannot_be_an_output_fails_and_is_not_fetched(
    shop: Workshop, provider: Provider, fault: dict[str, Any]
) -> None:
    provider.spoil(fault)
    id = shop.ask()["id"]
    failed = _through_retries(shop, id)
    assert failed["status"] == "failed" and failed["error"]["code"] == "output_invalid"
    assert provider.ledger["downloads"] == 0


@pytest.mark.parametrize("kind", ["output_list", "output_data_uri"])
@pytest.mark.parametrize("what", ["image", "video"])
def test_an_output_may_be_a_list_or_come_inline(shop: Workshop, provider: Provider, kind: str, what: str) -> None:
    provider.spoil({"kind": kind})
    source = {"asset_id": shop.upload(png())} if what == "video" else {}
    id = shop.ask(what, **source)["id"]
    made = shop.ended(id, "completed")
    assert made["content_type"] == ("video/mp4" if what == "video" else "image/jpeg")
    assert provider.ledger["downloads"] == (1 if kind == "output_list" else 0)


@pytest.mark.hazard(9)
def test_an_endless_output_is_cut_off_and_refused(tmp_path: Path, provider: Provider) -> None:
    provider.spoil({"kind": "output_huge"})
    with working(tmp_path, provider, max_output_mb=3) as shop:
        id = shop.ask()["id"]
        assert shop.ended(id, "failed")["error"]["code"] == "output_invalid"


def test_a_slow_output_arrives(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "output_slow", "bytes_per_s": 80_000})
    shop.ended(shop.ask()["id"], "completed")


def test_an_output_that_expired_before_it_was_fetched_says_so(bench: Workshop, provider: Provider) -> None:
    id = bench.ask()["id"]
    provider.spoil({"kind": "webhook_lost"})
    bench.submit_next()
    prediction = bench.row(id).provider_id or ""
    provider.ended(prediction)
    bench.clock.forward(11)
    bench.look("processing")
    assert httpx.post(f"{provider.server.origin}/emulator/expire/{prediction}").status_code == 200
    bench.clock.forward(3700)
    bench.look("storing")
    assert provider.ledger["downloads"] == 1
    failed = bench.ended(id, "failed")
    assert failed["error"]["code"] == "output_expired" and bench.row(id).possibly_charged


def test_a_prediction_whose_file_is_deleted_is_a_failure_that_says_so() -> None:
    gone = outcome({"id": "p", "status": "succeeded", "output": None, "data_removed": True}, 0, 0)
    assert gone.failure and gone.failure.code == "output_expired"


def test_large_outputs_are_stored_whole(tmp_path: Path) -> None:
    with emulating(replace(TINY, output_bytes=30_000_000)) as provider, working(tmp_path, provider) as shop:
        image, video = shop.ask()["id"], shop.ask("video", asset_id=shop.upload(png()))["id"]
        assert shop.ended(image, "completed")["bytes"] >= 30_000_000
        assert shop.ended(video, "completed")["bytes"] >= 30_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "media"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "reelhook-test", str(folder)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small disk takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_delays_the_result_and_does_not_lose_it(
    tmp_path: Path, small_disk: Path, provider: Provider
) -> None:
    hog = small_disk / "hog"
    with working(tmp_path, provider) as shop:
        with contextlib.suppress(OSError):
            hog.write_bytes(bytes(4_000_000))
        video = shop.ask(prompt="fills the disk")["id"]
        shop.reach(video, "storing")
        until(lambda: shop.row(video).lease_owner is None and shop.row(video).due_at > shop.clock() + 10_000)
        assert shop.get(video)["status"] == "processing"
        hog.unlink()
        shop.forward(31)
        shop.ended(video, "completed")
        until(lambda: not list((small_disk / "tmp").iterdir()))


@pytest.mark.parametrize("where", ["download", "inside", "poster", "keep"])
def test_no_room_at_any_step_of_storing_only_delays_it(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object, **__: object) -> None:
        raise full

    def no_room(*_: object, **__: object) -> None:
        with room.needed():
            raise full

    provider.spoil({"kind": "webhook_lost"}, *([{"kind": "output_data_uri"}] if where == "inside" else []))
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.clock.forward(11)
    bench.look("processing")
    with monkeypatch.context() as patch:
        if where == "poster":
            patch.setattr(cage, "_open", no_room)
        elif where == "keep":
            patch.setattr(folders.durable, "sync", refuse)
        else:
            owner, name = {"download": (downloads.Download, "_write"), "inside": (spool, "_append")}[where]
            patch.setattr(owner, name, no_room)
        assert bench.look("storing") == [id]
    row = bench.row(id)
    assert row.status == "storing" and row.lease_owner is None and row.attempts == 0
    bench.clock.forward(31)
    bench.look("storing")
    bench.ended(id, "completed")


def test_nothing_new_is_sent_while_its_result_could_not_be_stored(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = bench.ask()["id"]

    async def nearly_full() -> int:
        return 50_000_000

    bench.ctx.settings.__dict__["min_free_mb"] = 200
    with monkeypatch.context() as patch:
        patch.setattr(bench.ctx.spool, "free_bytes", nearly_full)
        bench.clock.forward(2)
        assert bench.submit_next() == []
        assert bench.try_to_ask(prompt="a fox").status_code == 507
    bench.clock.forward(2)
    assert bench.submit_next() == [id]
    provider.ended(bench.row(id).provider_id or "")
    bench.finished = False


def test_a_file_stored_before_a_crash_is_the_result_even_when_the_provider_has_it_no_more(
    bench: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.spoil({"kind": "webhook_lost"})
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
    assert bench.get(id)["status"] == "completed" and provider.ledger["downloads"] == 1
