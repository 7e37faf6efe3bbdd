"""What is deleted is gone for everybody at once, with its bytes soon after; what is in use is not deleted."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from api_service import Service, Tenant, form, png, running
from auditor import witness
from emulating import Provider
from test_media import video as write_video
from webserving import Answer
from workshop import ME, Workshop

from backend.core import filing
from backend.core.errors import ReelhookError
from backend.core.generation import CANCELED, PROCESSING, QUEUED, STORING, SUBMITTING, UNCLEAR, Failure
from backend.core.people import Caller
from backend.db import generations, operations
from backend.db.connection import Tx
from backend.manage import assets, clients
from backend.providers import signatures
from backend.steps import collect, receive, references, watch
from backend.upkeep import orphans, tidy
from backend.worker import LEASE_MS

SECRET = signatures.read_secret("whsec_" + "A" * 32)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("deletion")) as found:
        yield found


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_video(tmp_path_factory.mktemp("film") / "x.mp4", frames=12).read_bytes()


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


def delete(service: Service, who: Tenant, path: str) -> tuple[int, str | None]:
    answer = service.ask("DELETE", f"/api/v2/{path}", key=who.key)
    return answer.status, answer.json()["code"] if answer.body else None


def write(service: Service, work: Callable[[Tx], Awaitable[Any]]) -> Any:
    return service.run(service.ctx.db.write(work))


def stored(service: Service, *ids: str) -> list[str]:
    root = Path(service.ctx.settings.storage_url.removeprefix("file:"))
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name.startswith(ids))


def asset(service: Service, who: Tenant, content: bytes | None = None) -> dict[str, Any]:
    body, headers = form(content or png())
    found: dict[str, Any] = service.ask("POST", "/api/v2/assets", key=who.key, content=body, headers=headers).json()
    return found


def campaign(service: Service, who: Tenant) -> str:
    return str(service.ask("POST", "/api/v2/campaigns", {"name": "other"}, key=who.key).json()["id"])


def image(service: Service, who: Tenant, **more: Any) -> str:
    id = str(service.generate(who, **more)["id"])
    service.completed(id, png(), png(kind="JPEG"))
    return id


def rows_of(service: Service, client_id: str) -> dict[str, int]:
    """How many rows of each table are this client's."""
    tables = {name: "client_id" for name in ("campaigns", "api_keys", "assets", "generations", "events")}
    found = {}
    for table, column in (*tables.items(), ("clients", "id"), ("idempotency_keys", "REPLACE(scope, 'client:', '')")):
        sql = f"SELECT COUNT(*) AS n FROM {table} WHERE {column} = :id"  # noqa: S608
        found[table] = service.run(service.ctx.db.read(lambda tx, sql=sql: tx.one(sql, id=client_id)))["n"]
    return found


def go_to(service: Service, id: str, stage: str) -> None:
    """Move a queued generation to a stage as a worker would."""
    ways: dict[str, list[str]] = {
        QUEUED: [],
        SUBMITTING: [SUBMITTING],
        UNCLEAR: [SUBMITTING, UNCLEAR],
        PROCESSING: [SUBMITTING, PROCESSING],
        STORING: [SUBMITTING, PROCESSING, STORING],
        CANCELED: [CANCELED],
    }
    ways["failed"] = [*ways[PROCESSING], "failed"]

    async def work(tx: Tx) -> None:
        now = service.ctx.now()
        more: dict[str, dict[str, Any]] = {
            SUBMITTING: {"claimed_at": now},
            PROCESSING: {"provider_id": f"p-{id}"},
            "failed": {"failure": Failure("provider_failed", "It broke.")},
        }
        for status in ways[stage]:
            await generations.move(tx, id, status, now=now, **more.get(status, {}))

    write(service, work)


@pytest.mark.parametrize("source", ["image_id", "asset_id", "end_image"])
@pytest.mark.parametrize("stage", [QUEUED, SUBMITTING, UNCLEAR, PROCESSING])
def test_what_a_provider_may_still_fetch_is_not_deleted(service: Service, who: Tenant, stage: str, source: str) -> None:
    used = asset(service, who)["id"] if source == "asset_id" else image(service, who)
    path = f"{'assets' if source == 'asset_id' else 'generations'}/{used}"
    wanted: dict[str, Any] = {source: used}
    if source == "end_image":
        wanted = {"image_id": image(service, who), "end_image": {"image_id": used}, "mode": "pro"}
    needs = service.generate(who, "video", **wanted)["id"]
    go_to(service, needs, stage)
    assert delete(service, who, path) == (409, "in_use")
    service.failed(needs)
    assert delete(service, who, path) == (204, None)
    assert delete(service, who, path)[0] == 404


@pytest.mark.parametrize("stage", [STORING, CANCELED, "failed"])
def test_what_no_provider_fetches_any_more_can_be_deleted(service: Service, who: Tenant, stage: str) -> None:
    used = image(service, who)
    go_to(service, service.generate(who, "video", image_id=used)["id"], stage)
    assert delete(service, who, f"generations/{used}") == (204, None)


def test_an_image_whose_video_still_waits_for_another_one_is_in_use(service: Service, who: Tenant) -> None:
    used, unfinished = image(service, who), service.generate(who)["id"]
    wanted = {"image_id": used, "end_image": {"image_id": unfinished}, "mode": "pro"}
    assert service.generate(who, "video", **wanted)["stage"] == "waiting"
    assert delete(service, who, f"generations/{used}") == (409, "in_use")


def test_a_campaign_stays_while_another_one_is_made_from_its_files(service: Service, who: Tenant) -> None:
    other = campaign(service, who)
    used = image(service, who, campaign_id=other)
    needs = service.generate(who, "video", image_id=used)["id"]
    assert delete(service, who, f"campaigns/{other}") == (409, "in_use")
    go_to(service, needs, PROCESSING)
    assert delete(service, who, f"campaigns/{other}") == (409, "in_use")
    assert service.ask("GET", f"/api/v2/images/{used}/data", key=who.key).status == 200
    service.failed(needs)
    assert delete(service, who, f"campaigns/{other}") == (204, None)
    assert delete(service, who, f"campaigns/{other}")[0] == 404


def test_a_retry_of_what_started_from_something_deleted_is_refused(service: Service, who: Tenant) -> None:
    other = campaign(service, who)
    sources: list[tuple[str, dict[str, Any]]] = [
        (f"campaigns/{other}", {"image_id": image(service, who, campaign_id=other)}),
        (f"assets/{(one := asset(service, who))['id']}", {"asset_id": one["id"]}),
        (f"generations/{(made := image(service, who))}", {"image_id": made}),
    ]
    for path, source in sources:
        failed = service.generate(who, "video", **source)["id"]
        service.failed(failed)
        assert delete(service, who, path) == (204, None)
        refused = service.ask("POST", f"/api/v2/generations/{failed}/retry", key=who.key)
        assert (refused.status, refused.json()["code"]) == (409, "not_retryable"), path


def test_links_to_what_is_deleted_are_not_found_before_and_after_the_bytes_go(service: Service, who: Tenant) -> None:
    made, brought = image(service, who), asset(service, who)
    shown = service.ask("GET", f"/api/v2/generations/{made}", key=who.key).json()
    links = [url[url.index("/api") :] for url in (shown["url"], shown["poster_url"], brought["url"])]
    assert [service.ask("GET", link, key="").status for link in links] == [200, 200, 200]
    assert delete(service, who, f"generations/{made}") == (204, None)
    assert delete(service, who, f"assets/{brought['id']}") == (204, None)
    assert len(stored(service, made, brought["id"])) == 3
    assert [service.ask("GET", link, key="").status for link in links] == [404, 404, 404]
    service.run(tidy.tidy(service.ctx))
    assert stored(service, made, brought["id"]) == []
    assert [service.ask("GET", link, key="").status for link in links] == [404, 404, 404]


@pytest.mark.parametrize("whole", ["generation", "campaign", "client"])
def test_the_frames_of_a_video_go_with_it(service: Service, who: Tenant, film: bytes, whole: str) -> None:
    video = service.generate(who, "video")
    service.completed(video["source"]["image_id"], png())
    service.completed(video["id"], film, png(kind="JPEG"))
    brought = asset(service, who, film)
    for id in (video["id"], brought["id"]):
        for which in filing.FRAMES:
            spooled = service.ctx.spool.new(filing.frame(id, which))
            spooled.write_bytes(png(kind="JPEG"))
            service.run(service.ctx.store.put(spooled, filing.frame(id, which)))
    assert len(stored(service, video["id"], brought["id"])) == 7
    path = {"generation": f"generations/{video['id']}", "campaign": f"campaigns/{who.campaign_id}"}
    if whole == "client":
        assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 204
    else:
        assert delete(service, who, path[whole]) == (204, None)
        assert delete(service, who, f"assets/{brought['id']}") == (204, None)
    service.run(tidy.tidy(service.ctx))
    assert stored(service, video["id"], brought["id"]) == []


def test_of_a_deleted_client_no_row_stays_and_its_key_dies_at_once(service: Service, who: Tenant) -> None:
    headers = {"Idempotency-Key": "kept"}
    wanted = {"campaign_id": who.campaign_id, "prompt": "a fox"}
    made = service.ask("POST", "/api/v2/generate/image", wanted, key=who.key, headers=headers).json()["id"]
    service.completed(made, png())
    asset(service, who)
    assert 0 not in rows_of(service, who.client_id).values()
    assert service.ask("GET", "/api/v2/campaigns", key=who.key).status == 200
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 204
    assert service.ask("GET", "/api/v2/campaigns", key=who.key).status == 401
    assert service.ask("POST", "/api/v2/generate/image", wanted, key=who.key, headers=headers).status == 401
    service.run(tidy.tidy(service.ctx))
    assert set(rows_of(service, who.client_id).values()) == {0}
    assert service.ask("GET", "/api/v2/campaigns", key=who.key).status == 401
    assert service.ask("DELETE", f"/api/v2/keys/{who.key_id}").status == 404
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 404


def test_a_repeated_request_is_not_made_again_because_its_generation_was_deleted(service: Service, who: Tenant) -> None:
    headers, wanted = {"Idempotency-Key": "once"}, {"campaign_id": who.campaign_id, "prompt": "a fox"}

    def ask() -> Answer:
        return service.ask("POST", "/api/v2/generate/image", wanted, key=who.key, headers=headers)

    first = ask()
    service.failed(first.json()["id"])
    assert delete(service, who, f"generations/{first.json()['id']}") == (204, None)
    again = ask()
    assert (again.status, again.json(), again.headers["idempotent-replayed"]) == (202, first.json(), "true")
    assert service.ask("GET", f"/api/v2/generations?client_id={who.client_id}", key=who.key).json()["items"] == []


def test_a_late_webhook_for_a_deleted_campaign_is_answered_calmly(service: Service, who: Tenant) -> None:
    made = image(service, who)
    nonce = service.run(service.ctx.db.read(lambda tx: generations.nonce_of(tx, "replicate", made)))
    told = json.dumps({"id": f"p-{made}", "status": "succeeded", "output": "https://replicate.delivery/x.png"}).encode()

    def tell(webhook_id: str) -> int:
        at = int(time.time())
        headers = {"webhook-id": webhook_id, "webhook-timestamp": str(at), "content-type": "application/json"}
        headers["webhook-signature"] = signatures.sign(SECRET, webhook_id, at, told)
        path = f"/webhooks/replicate/{made}/{nonce}"
        return service.ask("POST", path, key="", content=told, headers=headers).status

    assert delete(service, who, f"campaigns/{who.campaign_id}") == (204, None)
    assert tell("msg_before_its_row_goes") == 200
    service.run(tidy.empty_campaigns(service.ctx))
    assert tell("msg_after") == 404
    assert service.run(receive.believe(service.ctx)) == 0
    service.run(tidy.tidy(service.ctx))
    assert stored(service, made) == []


def test_a_file_whose_client_is_deleted_while_it_is_taken_in_is_refused_and_goes(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    take_in = assets.take_in

    async def and_then(*args: Any) -> Any:
        made = await take_in(*args)
        taken.append(made.id)
        await service.ctx.db.write(lambda tx: clients.delete_client(tx, service.ctx, admin, who.client_id))
        await tidy.tidy(service.ctx)
        return made

    admin = Caller("k", None, admin=True)
    monkeypatch.setattr(assets, "take_in", and_then)
    body, headers = form(png())
    refused = service.ask("POST", "/api/v2/assets", key=who.key, content=body, headers=headers)
    assert (refused.status, refused.json()["code"]) == (404, "client_not_found")
    assert len(stored(service, *taken)) == 1
    service.run(tidy.tidy(service.ctx))
    assert stored(service, *taken) == []


def test_a_row_that_is_written_after_all_keeps_its_bytes(service: Service, who: Tenant) -> None:
    """As when its client hung up: the transaction is finished without it."""
    brought = asset(service, who)
    found = service.run(service.ctx.db.read(lambda tx: assets.assets.get(tx, brought["id"])))
    assert found
    service.run(assets.leave(service.ctx, found))
    service.run(tidy.tidy(service.ctx))
    assert len(stored(service, brought["id"])) == 1


def test_a_worker_that_finishes_after_the_deletion_leaves_no_file(bench: Workshop, provider: Provider) -> None:
    witness(bench.folder)
    id = bench.ask()["id"]
    bench.submit_next()
    provider.ended(bench.row(id).provider_id or "")
    bench.forward(60)
    bench.look("processing")
    bench.run(receive.believe(bench.ctx))

    async def story() -> None:
        (row,) = await watch.claim(bench.ctx, ME, STORING, 1, LEASE_MS)
        why = Failure("timed_out", "set aside by another worker")
        end = {"now": bench.ctx.now(), "failure": why, "possibly_charged": True}
        await bench.ctx.db.write(lambda tx: generations.move(tx, id, "failed", **end))
        await bench.ctx.db.write(lambda tx: generations.delete(tx, id))
        await collect.store(bench.ctx, row, ME)

    bench.run(story())
    kept = [path for path in (bench.folder / "media").rglob(f"{id}*")]
    assert len(kept) == 2
    bench.run(tidy.tidy(bench.ctx))
    assert not any(path.exists() for path in kept)


def test_a_frame_made_while_its_video_is_deleted_goes_too(
    service: Service, who: Tenant, film: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = service.generate(who, "video")
    service.completed(video["source"]["image_id"], png())
    service.completed(video["id"], film, png(kind="JPEG"))
    needs = service.generate(who, video_id=video["id"])["id"]
    row = service.run(service.ctx.db.read(lambda tx: generations.get(tx, needs)))
    make = service.ctx.cage.frame

    async def and_then(*args: Any, **more: Any) -> None:
        await make(*args, **more)
        await _cancel_and_delete(service, needs, video["id"])

    monkeypatch.setattr(service.ctx.cage, "frame", and_then)
    assert row
    with suppress(ReelhookError):
        service.run(references.resolve(service.ctx, row))
    service.run(tidy.tidy(service.ctx))
    assert stored(service, video["id"]) == []


async def _cancel_and_delete(service: Service, needs: str, video: str) -> None:
    async def work(tx: Tx) -> None:
        await generations.move(tx, needs, CANCELED, now=service.ctx.now())
        row = await generations.get(tx, video)
        assert row
        await operations.throw_away(tx, filing.of_generation(row), service.ctx.now())
        await generations.delete(tx, video)

    await service.ctx.db.write(work)
    await tidy.empty_trash(service.ctx)


def test_a_start_in_the_middle_of_a_large_deletion_is_not_taken_for_the_wrong_database(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        who = service.tenant()
        kept = image(service, who)
        names = [f"{service.ctx.new_id()}.png" for _ in range(orphans.MOST_ORPHANS + 50)]
        for name in names:
            spooled = service.ctx.spool.new(name)
            spooled.write_bytes(b"x")
            service.run(service.ctx.store.put(spooled, name))
        write(service, lambda tx: operations.throw_away(tx, names, service.ctx.now()))
        assert service.run(orphans.sweep_orphans(service.ctx)) == orphans.Swept(0, 0)
        service.run(tidy.tidy(service.ctx))
        assert stored(service, "") == sorted(stored(service, kept))


def test_the_sweep_at_a_start_leaves_files_whose_row_may_yet_be_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash came between the file and its commit: a paid result, which the row will name in a moment."""
    monkeypatch.setattr(orphans, "SETTLE_S", 0)
    with running(tmp_path) as service:
        nobodys, unfinished = service.ctx.new_id(), service.generate(service.tenant())["id"]
        for id in (unfinished, nobodys):
            spooled = service.ctx.spool.new(f"{id}.png")
            spooled.write_bytes(b"x")
            service.run(service.ctx.store.put(spooled, f"{id}.png"))
        assert service.run(orphans.sweep_orphans(service.ctx)) == orphans.Swept(1, 1)
        assert stored(service, "") == [f"{unfinished}.png"]


def test_bytes_are_gone_for_good_before_their_note_is(
    service: Service, who: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two leaves the note: the next round does it again and finds nothing to do."""
    made = image(service, who)
    assert delete(service, who, f"generations/{made}") == (204, None)
    forget = operations.forget_rubbish

    async def crash(*_: Any) -> None:
        assert stored(service, made) == []
        raise RuntimeError("a crash")

    monkeypatch.setattr(operations, "forget_rubbish", crash)
    with pytest.raises(RuntimeError, match="a crash"):
        service.run(tidy.empty_trash(service.ctx))
    monkeypatch.setattr(operations, "forget_rubbish", forget)
    assert service.run(tidy.empty_trash(service.ctx)) == 2
    assert service.run(tidy.empty_trash(service.ctx)) == 0
