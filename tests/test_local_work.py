"""Films that are cut and joined here are generations like all others: queued, leased, killed, stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from emulating import Provider, until
from films import film, seen
from gateway import Gateway, gateway
from processes import children, open_files
from workshop import ME, Workshop, working

from backend.app import open_context
from backend.config import Settings
from backend.context import AFTER_A_REQUEST, Context
from backend.core.errors import InvalidInput, MediaUnavailable, NotFound, ReelhookError
from backend.core.generation import Generation
from backend.core.people import Caller
from backend.manage import clients
from backend.media import WORKS, cage
from backend.steps import make, queue, submit
from backend.upkeep import after_restore, tidy
from backend.worker import LEASE_MS, Worker
from backend.worker.lanes import lanes
from backend.worker.loop import MOST_ATTEMPTS

KINDS = ("image", "video")


async def _accept(ctx: Context, campaign_id: str, work: Any, sources: list[dict[str, str]], **told: Any) -> Generation:
    client = await ctx.db.write(lambda tx: clients.dev_client(tx, ctx))
    caller = Caller("dev", client.id, admin=True)
    row = await ctx.db.write(lambda tx: make.accept(tx, ctx, caller, campaign_id, work, sources, **told))
    ctx.wake(*AFTER_A_REQUEST)
    return row


def ask(shop: Workshop, work: str, *sources: dict[str, str], campaign: str = "", **told: Any) -> str:
    return shop.run(_accept(shop.ctx, campaign or shop.campaign_id, work, list(sources), **told)).id


def uploaded(shop: Any, folder: Path, name: str = "film", **more: Any) -> dict[str, str]:
    path = film(folder / f"{name}.made", **more)
    return {"asset_id": shop.upload(path.read_bytes(), f"{name}.mp4")}


def result(shop: Workshop, id: str) -> Path:
    (path,) = (shop.folder / "media").rglob(f"{id}.mp4")
    return path


def files_of(shop: Workshop, id: str) -> list[str]:
    shop.run(tidy.tidy(shop.ctx))
    return sorted(path.name for path in (shop.folder / "media").rglob(f"{id}*"))


def test_a_trim_of_a_generated_video_ends_completed_with_its_length_and_costs_nothing(
    shop: Workshop, provider: Provider
) -> None:
    video = shop.ended(shop.ask("video", prompt="a red kite")["id"], "completed")
    creates = len(provider.ledger["creates"])
    made = shop.ended(ask(shop, "trim", {"video_id": video["id"]}, from_s=0.25, to_s=0.75), "completed")
    assert made["duration_s"] == pytest.approx(0.5, abs=0.05) == seen(result(shop, made["id"])).seconds
    assert (made["width"], made["height"], made["content_type"]) == (video["width"], video["height"], "video/mp4")
    assert made["cost_usd"] == {"estimated": 0.0, "actual": 0.0} and not made["possibly_charged"]
    assert made["poster_url"] and shop.http.get(made["url"]).status_code == 200
    assert files_of(shop, made["id"]) == [f"{made['id']}-poster.jpg", f"{made['id']}.mp4"]
    assert len(provider.ledger["creates"]) == creates


def test_a_frame_and_a_poster_are_images(shop: Workshop, tmp_path: Path) -> None:
    source = uploaded(shop, tmp_path, size=(1280, 720), seconds=0.5)
    frame = shop.ended(ask(shop, "frame", source, which="last"), "completed")
    poster = shop.ended(ask(shop, "poster", source), "completed")
    assert [(one["kind"], one["content_type"], one["width"]) for one in (frame, poster)] == [
        ("image", "image/jpeg", 1280),
        ("image", "image/jpeg", 640),
    ]
    assert files_of(shop, frame["id"]) == [f"{frame['id']}-poster.jpg", f"{frame['id']}.jpg"]


def test_a_stitch_waits_for_its_sources_and_keeps_their_order(
    shop: Workshop, provider: Provider, tmp_path: Path
) -> None:
    provider.spoil({"kind": "delay", "on": "run", "delay_s": 0.5, "match": {"prompt_contains": "slow"}})
    late = shop.ask("video", prompt="slow")
    asset = uploaded(shop, tmp_path, size=(160, 90), seconds=1, sound_s=1)
    cut = ask(shop, "trim", asset, from_s=0.5, to_s=1)
    id = ask(shop, "stitch", asset, {"video_id": late["id"]}, {"video_id": cut}, asset)
    assert shop.stage(id) == "waiting"
    made, video = shop.ended(id, "completed"), shop.get(late["id"])
    assert video["completed_at"] <= made["submitted_at"]
    assert made["duration_s"] == pytest.approx(2.5 + video["duration_s"], abs=0.15)
    shown = seen(result(shop, id))
    assert shown.size == (160, 90) and shown.sound_s == pytest.approx(shown.seconds, abs=0.05)
    assert shown.original_s(0.5) == pytest.approx(0.5, abs=0.06)
    assert shown.original_s(1.1 + video["duration_s"]) == pytest.approx(0.6, abs=0.08)


def test_a_source_that_fails_fails_it(shop: Workshop, provider: Provider, tmp_path: Path) -> None:
    asset = uploaded(shop, tmp_path, seconds=0.5)
    never = {"match": {"prompt_contains": "never"}}
    provider.spoil({"kind": "delay", "on": "run", "delay_s": 1.0, **never}, {"kind": "failed", **never})
    id = ask(shop, "stitch", asset, {"video_id": shop.ask("video", prompt="never")["id"]})
    assert shop.ended(id, "failed")["error"]["code"] == "source_failed"


def test_a_broken_film_fails_with_a_sentence_and_leaves_nothing(shop: Workshop, tmp_path: Path) -> None:
    source = uploaded(shop, tmp_path, seconds=1)
    (stored,) = (shop.folder / "media").rglob(f"{source['asset_id']}*")
    whole = stored.read_bytes()
    stored.write_bytes(whole[:200] + bytes(len(whole) - 200))
    id = ask(shop, "trim", source, from_s=0, to_s=0.5)
    error = shop.ended(id, "failed")["error"]
    assert error["code"] == "source_failed" and error["message"].endswith(".") and "/" not in error["message"]
    assert not shop.get(id)["possibly_charged"]
    assert files_of(shop, id) == [] and not list((shop.folder / "media" / "tmp").iterdir())
    stored.write_bytes(whole)


def test_a_cut_beyond_the_end_says_where_the_end_is(shop: Workshop, tmp_path: Path) -> None:
    id = ask(shop, "trim", uploaded(shop, tmp_path, seconds=1), from_s=0, to_s=9)
    assert "ends at second 1.00" in shop.ended(id, "failed")["error"]["message"]


@pytest.mark.parametrize(
    ("work", "count", "told"),
    [
        ("trim", 1, {}),
        ("trim", 1, {"from_s": 2, "to_s": 1}),
        ("trim", 1, {"from_s": -1, "to_s": 1}),
        ("trim", 1, {"from_s": float("nan"), "to_s": 1}),
        ("trim", 1, {"from_s": "0", "to_s": 1}),
        ("trim", 2, {"from_s": 0, "to_s": 1}),
        ("stitch", 0, {}),
        ("stitch", 1, {}),
        ("stitch", 33, {}),
        ("stitch", 2, {"from_s": 1}),
        ("frame", 1, {"which": "middle"}),
        ("sharpen", 1, {}),
    ],
)
def test_what_makes_no_sense_is_refused_before_there_is_a_row(
    bench: Workshop, tmp_path: Path, work: str, count: int, told: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        ask(bench, work, *[{"asset_id": "01920000-0000-7000-8000-000000000000"}] * count, **told)
    assert bench.http.get("/api/v2/generations").json()["items"] == []


def test_sources_are_the_clients_own_films(bench: Workshop, tmp_path: Path) -> None:
    other = bench.campaign("theirs", bench.client("another"))
    mine = uploaded(bench, tmp_path, seconds=0.5)
    image = bench.ask(prompt="a still")["id"]
    for error, campaign, source in (
        (NotFound, other, mine),
        (NotFound, "", {"video_id": image}),
        (InvalidInput, "", {"image_id": image}),
        (InvalidInput, "", {"asset_id": mine["asset_id"], "image_id": image}),
        (InvalidInput, "", {}),
    ):
        with pytest.raises(error):
            ask(bench, "trim", source, campaign=campaign, from_s=0, to_s=0.5)
    bench.finished = False


def test_what_it_starts_from_cannot_be_deleted_while_it_is_needed(shop: Workshop, tmp_path: Path) -> None:
    asset = uploaded(shop, tmp_path, size=(640, 480), seconds=4)
    id = ask(shop, "stitch", *[asset] * 4)
    refused = shop.http.delete(f"/api/v2/assets/{asset['asset_id']}")
    assert refused.status_code == 409, refused.text
    shop.ended(id, "completed")
    assert shop.http.delete(f"/api/v2/assets/{asset['asset_id']}").status_code == 204


def test_nobody_can_ask_for_it_and_no_list_shows_it(shop: Workshop, tmp_path: Path) -> None:
    id = ask(shop, "trim", uploaded(shop, tmp_path, seconds=1), from_s=0, to_s=0.5)
    shop.ended(id, "completed")
    for local, unknown in (({"provider": "local"}, {"provider": "nobody"}), ({"model": "trim"}, {"model": "nothing"})):
        answers = [shop.try_to_ask("video", prompt="x", **one) for one in (local, unknown)]
        assert [one.status_code for one in answers] == [422, 422]
        assert answers[0].json()["errors"] == answers[1].json()["errors"]
    assert shop.http.post(f"/webhooks/local/{id}/nonce", content=b"{}").status_code == 404
    assert shop.ctx.offered == ["replicate"]
    assert "trim" not in shop.http.get("/v1/models").text and "local" not in shop.http.get("/api/v2/models").text
    assert 'reelhook_provider_paused{provider="local"}' not in shop.http.get("/metrics").text
    assert shop.http.post(f"/api/v2/generations/{id}/retry", json={}).status_code == 409


def test_films_that_are_made_are_few_at_a_time_and_clients_take_turns(bench: Workshop, tmp_path: Path) -> None:
    others = bench.client("another")
    campaigns = [bench.campaign_id, bench.campaign("theirs", others)]
    content = film(tmp_path / "film", seconds=0.5).read_bytes()
    mine, theirs = bench.upload(content, "film.mp4"), bench.upload(content, "film.mp4", client_id=others)
    asked = [ask(bench, "frame", {"asset_id": mine}, which="first") for _ in range(3)]
    asked += [ask(bench, "frame", {"asset_id": theirs}, campaign=campaigns[1], which="first") for _ in range(3)]

    async def turns() -> list[str]:
        lane = next(one for one in lanes(bench.ctx, ME, KINDS) if one.name == "submit" and one.account == "local")
        assert lane.most == WORKS
        taken = []
        while rows := await queue.claim(bench.ctx, ME, KINDS, 1, LEASE_MS, "local"):
            taken += [one.campaign_id for one in rows]
            for one in rows:
                await submit.send(bench.ctx, one, ME)
        return taken

    taken = bench.run(turns())
    assert taken in (campaigns * 3, campaigns[::-1] * 3)
    bench.look("storing")
    assert {bench.row(id).status for id in asked} == {"completed"}
    assert files_of(bench, asked[0]) == [f"{asked[0]}-poster.jpg", f"{asked[0]}.jpg"]


def test_a_worker_that_died_leaves_it_in_the_queue_and_after_five_times_it_is_set_aside(
    bench: Workshop, tmp_path: Path
) -> None:
    id = ask(bench, "trim", uploaded(bench, tmp_path, seconds=1), from_s=0, to_s=0.5)
    bench.finished = False
    for attempt in range(1, MOST_ATTEMPTS + 1):
        bench.run(_die_while_submitting(bench))
        bench.forward(LEASE_MS / 1000 + 1)
        assert (bench.row(id).status, bench.row(id).attempts) == ("submitting", attempt)
        bench.run(_tend_the_lost(bench))
        if attempt < MOST_ATTEMPTS:
            assert (bench.row(id).status, bench.row(id).attempts, bench.row(id).claimed_at) == ("queued", attempt, None)
    row = bench.row(id)
    assert row.status == "failed" and row.failure and "five times" in row.failure.message
    assert not row.possibly_charged and row.spent_micros == 0


async def _die_while_submitting(bench: Workshop) -> None:
    (row,) = await queue.claim(bench.ctx, ME, KINDS, 1, LEASE_MS, "local")
    assert await submit._begin(bench.ctx, row, ME)


async def _tend_the_lost(bench: Workshop) -> None:
    lane = next(one for one in lanes(bench.ctx, ME, KINDS) if one.name == "lost" and one.account == "local")
    rows = await lane.claim(1)
    await Worker(bench.ctx, id=ME)._do(lane, rows[0], lane.work(list(rows)))


def test_one_that_was_canceled_before_its_worker_died_ends_canceled(bench: Workshop, tmp_path: Path) -> None:
    id = ask(bench, "trim", uploaded(bench, tmp_path, seconds=1), from_s=0, to_s=0.5)
    bench.run(_die_while_submitting(bench))
    assert bench.cancel(id).status_code < 300
    bench.forward(LEASE_MS / 1000 + 1)
    bench.look("submitting")
    assert (bench.row(id).status, bench.row(id).possibly_charged) == ("canceled", False)


def test_two_workers_that_did_the_same_leave_one_result(bench: Workshop, tmp_path: Path) -> None:
    id = ask(bench, "trim", uploaded(bench, tmp_path, seconds=1), from_s=0, to_s=0.5)

    async def twice() -> None:
        (row,) = await queue.claim(bench.ctx, ME, KINDS, 1, LEASE_MS, "local")
        begun = await submit._begin(bench.ctx, row, ME)
        assert begun
        await asyncio.gather(submit.send(bench.ctx, begun, ME), submit.send(bench.ctx, begun, ME))

    bench.run(twice())
    assert bench.row(id).status == "storing"
    bench.look("storing")
    assert bench.row(id).status == "completed" and seen(result(bench, id)).seconds == 0.5


def test_a_cage_that_cannot_be_started_is_waited_for(
    bench: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = ask(bench, "trim", uploaded(bench, tmp_path, seconds=1), from_s=0, to_s=0.5)

    async def stopping(*_: object, **more: object) -> None:
        raise MediaUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(bench.ctx.cage, "trim", stopping)
        bench.submit_next()
    assert bench.row(id).status == "queued"
    bench.forward(120)
    bench.submit_next()
    bench.look("storing")
    assert bench.row(id).status == "completed"


def test_a_restore_holds_none_of_it_because_it_may_be_made_again(bench: Workshop, tmp_path: Path) -> None:
    id = ask(bench, "trim", uploaded(bench, tmp_path, seconds=1), from_s=0, to_s=0.5)
    assert bench.run(after_restore.hold_unsent(bench.ctx, bench.ctx.now())) == 0
    bench.submit_next()
    bench.look("storing")
    assert bench.row(id).status == "completed"


@pytest.mark.story
def test_a_kill_in_the_middle_ends_completed_once(tmp_path: Path, provider: Provider) -> None:
    with gateway(tmp_path, provider) as service:
        long = uploaded(service, tmp_path, size=(640, 480), seconds=8)
        id = asyncio.run(_ask_beside(service, "stitch", *[long] * 6))
        service.accepted.append(id)
        service.reach(id, "submitting")
        assert service.process
        pid = service.process.pid
        until(lambda: any(_is_writing(child, tmp_path) for child in children(pid)))
        service.kill()
        service.start()
        made = service.ended(id, "completed", 60)
        assert made["duration_s"] == pytest.approx(48, abs=0.2) and made["cost_usd"]["actual"] == 0
        assert {path.name for path in (tmp_path / "media").rglob(f"{id}[.-][!i]*")} == {f"{id}.mp4", f"{id}-poster.jpg"}


def _is_writing(pid: int, folder: Path) -> bool:
    return any(str(folder / "media" / "tmp") in path for path in open_files(pid).values())


async def _ask_beside(service: Gateway, work: str, *sources: dict[str, str], **told: Any) -> str:
    settings = Settings(_env_file=None, **{name.lower(): value for name, value in service.settings.items()})
    async with open_context(settings, beside=True) as ctx:
        return (await _accept(ctx, service.campaign_id, work, list(sources), **told)).id


def test_films_of_a_service_that_stops_are_made_after_its_next_start(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cage, "STOP_S", 0.1)
    with working(tmp_path, provider) as shop:
        long = uploaded(shop, tmp_path, size=(640, 480), seconds=8)
        id = ask(shop, "stitch", *[long] * 20)
        shop.reach(id, "submitting")
        shop.finished = False
    with working(tmp_path, provider) as shop:
        assert shop.stage(id) in ("queued", "submitting")
        shop.ended(id, "completed", 60)


def test_a_row_that_nobody_may_make_is_no_row(bench: Workshop) -> None:
    with pytest.raises(ReelhookError):
        ask(bench, "trim", campaign="nowhere", from_s=0, to_s=1)
