"""What the provider, or something before it, says to one request: it alone is concerned, and nothing is swallowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from emulating import IMAGE, Provider, png, until
from firewall import Firewall, answer, before
from test_provider_statuses import PAGE
from workshop import ME, Workshop, working

from backend.core.catalog import Catalog
from backend.core.errors import NotAMove
from backend.core.generation import QUEUED, UNCLEAR
from backend.core.models import Model
from backend.steps import collect, leased, queue, submit
from backend.worker import loop as worker

KEY = ("replicate", IMAGE)
LOST = {"kind": "webhook_lost"}


@pytest.fixture
def wall(provider: Provider) -> Iterator[Firewall]:
    with before(provider.server.origin) as wall:
        yield wall


@pytest.fixture
def walled(tmp_path: Path, provider: Provider, wall: Firewall) -> Iterator[Workshop]:
    """A service without a worker that speaks to its provider through the firewall."""
    with working(tmp_path, provider, worker=False, webhooks=False, replicate_base_url=f"{wall.origin}/v1") as bench:
        yield bench


def finish(bench: Workshop, provider: Provider, id: str) -> None:
    """Poll and store until it has ended."""
    for _ in range(20):
        if bench.row(id).finished_at:
            return
        if bench.row(id).provider_id:
            provider.ended(bench.row(id).provider_id or "")
        bench.clock.forward(31)
        for status in ("unclear", "processing", "storing"):
            bench.look(status)
    raise AssertionError(bench.row(id))


JUNK = [
    *(answer(status, PAGE.decode()) for status in (400, 408, 418, 429, 499, 500, 503, 520, 599, 999)),
    answer(204),
    answer(202, {"urls": {"get": "https://files.example/late"}}),
    answer(302, "", location="https://elsewhere.example/"),
    answer(201, "not JSON"),
    answer(201, None),
    answer(201, []),
    *(answer(201, {"urls": {"get": url}}) for url in (None, "", 3, ["x"], "file:///etc/passwd", "a b", "http://\x00")),
    b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n{",
    b"nonsense\r\n\r\n",
    b"",
]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers that were not used yet: one that was keeps the level and the place that were configured then."""
    before = structlog.get_config()
    structlog.reset_defaults()
    for module in (submit, worker):
        monkeypatch.setattr(module, "log", structlog.get_logger(module.__name__))
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("logged")
def test_whatever_the_file_store_answers_no_lease_is_burnt_and_nothing_is_charged(
    walled: Workshop, wall: Firewall, provider: Provider
) -> None:
    walled.ctx.catalog = _no_data_uris(walled.ctx.catalog)
    wall.stop("/files", *JUNK, answer(408))
    id = walled.ask("video", asset_id=walled.upload(png()))["id"]
    for _ in JUNK:
        with structlog.testing.capture_logs() as logs:
            assert walled.submit_next() == [id]
        row = walled.row(id)
        if row.status == "failed":  # a definite no
            assert not row.possibly_charged and row.failure and row.claimed_at is None
            id = walled.ask("video", asset_id=walled.upload(png()))["id"]
        else:
            assert (row.status, row.attempts, row.lease_owner) == (QUEUED, 0, None)
            put_off = [line for line in logs if line["event"] == "submit_put_off"]
            assert len(put_off) == (row.polls - 1 in (0, 1, 2, 4, 8, 16))
            assert all(line["generation_id"] == id and line["why"] for line in put_off)
        walled.clock.forward(70)
    assert provider.ledger["creates"] == []
    wall.open()
    walled.clock.forward(70)
    walled.submit_next()
    finish(walled, provider, id)
    walled.ended(id, "completed")


def _no_data_uris(catalog: Catalog) -> Catalog:
    facts = {name: replace(one, data_uri_limit_kb=0) for name, one in catalog.providers.items()}
    return replace(catalog, providers=facts)


def test_a_move_that_no_row_can_make_is_an_error_with_its_row(bench: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    id = bench.ask()["id"]
    with pytest.raises(NotAMove, match=id):
        bench.run(leased.move(bench.ctx, bench.row(id), UNCLEAR, ME))
    assert bench.row(id).status == QUEUED
    bench.finished = False


@pytest.mark.usefixtures("logged")
def test_such_an_error_in_a_worker_is_logged_with_its_traceback_and_counted(
    shop: Workshop, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wrong(ctx: Any, row: Any, worker: str) -> None:
        await leased.move(ctx, row, QUEUED, worker)

    before_it = _failures(shop)
    with structlog.testing.capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(collect, "store", wrong)
        id = shop.ask()["id"]
        until(lambda: any(line["event"] == "row_failed" for line in logs))
    (line,) = [line for line in logs if line["event"] == "row_failed"][:1]
    assert line["generation_id"] == id and line["exc_info"] and line["lane"] == "collect"
    assert _failures(shop) > before_it
    shop.forward(31)
    shop.ended(id, "completed")


def _failures(shop: Workshop) -> float:
    text = shop.http.get("/metrics").text
    found = [line for line in text.splitlines() if line.startswith('reelhook_rows_failed_total{lane="collect"}')]
    return float(found[0].split()[-1]) if found else 0.0


def _without(catalog: Catalog) -> Catalog:
    return replace(catalog, models={key: one for key, one in catalog.models.items() if key != KEY})


def _changed(catalog: Catalog, **fields: Any) -> Catalog:
    changed: Model = replace(catalog.models[KEY], **fields)
    return replace(catalog, models={**catalog.models, KEY: changed})


def _elsewhere(catalog: Catalog) -> Catalog:
    other = replace(catalog.models[KEY], provider="somebody")
    return replace(_without(catalog), models={**_without(catalog).models, ("somebody", IMAGE): other})


CATALOGS = {
    "gone": _without,
    "retired": lambda catalog: _changed(catalog, retired=True),
    "of another provider": _elsewhere,
    "takes other values": lambda catalog: _changed(
        catalog, inputs={"aspect_ratio": replace(catalog.models[KEY].inputs["aspect_ratio"], values={"2:1": "2:1"})}
    ),
    "cannot be built": lambda catalog: _changed(catalog, fixed={"odd": float("nan")}),
    "cannot be written": lambda catalog: _changed(catalog, fallback_prompt="x", fixed={"odd": "\ud800"}),
    "nonsense": lambda catalog: _changed(catalog, fixed={"odd": object()}),
}


@pytest.mark.parametrize("what", CATALOGS)
@pytest.mark.parametrize("with_source", [False, True], ids=["prompt", "image"])
def test_what_cannot_be_built_any_more_fails_clearly_before_it_begins(
    bench: Workshop, provider: Provider, what: str, with_source: bool
) -> None:
    given = {"asset_id": bench.upload(png())} if with_source else {}
    id = bench.ask(aspect_ratio="1:1", **given)["id"]
    bench.ctx.catalog = CATALOGS[what](bench.ctx.catalog)
    seen: list[str] = []
    bench.run(_watch_statuses(bench, id, seen))
    failed = bench.ended(id, "failed")
    assert "submitting" not in seen
    assert failed["error"]["code"] == "invalid_input" and IMAGE in failed["error"]["message"]
    row = bench.row(id)
    assert not row.possibly_charged and row.claimed_at is None and not provider.ledger["creates"]


async def _watch_statuses(bench: Workshop, id: str, seen: list[str]) -> None:
    """Claim and send it, with a look at its status in between: a kill may come there."""
    from backend.db import generations
    from backend.steps import submit
    from backend.worker import LEASE_MS

    rows = await queue.claim(bench.ctx, ME, ("image", "video"), 64, LEASE_MS)
    assert [row.id for row in rows] == [id]
    now = await bench.ctx.db.read(lambda tx: generations.get(tx, id))
    seen.append(now.status if now else "")
    await submit.send(bench.ctx, rows[0], ME)


def test_an_unclear_row_of_a_model_that_is_gone_breaks_no_search(walled: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "reset_after"}, LOST)
    id = walled.ask()["id"]
    walled.submit_next()
    walled.ctx.catalog = _without(walled.ctx.catalog)
    walled.clock.forward(6)
    assert walled.look("unclear") == [id]
    assert (walled.row(id).status, walled.row(id).attempts) == ("unclear", 0)
    walled.finished = False


@pytest.mark.hazard(58)
@pytest.mark.parametrize(
    "said",
    [
        answer(403, PAGE.decode()),
        answer(403, {"message": "Forbidden"}),
        answer(403, {"detail": "You do not have permission to run this model.", "status": 403}),
        answer(403, None),
        answer(408, {"detail": "Request timeout"}),
        answer(431, ""),
        answer(451, {"detail": "Not here.", "status": 451}),
    ],
    ids=lambda said: said.split(b"\r\n\r\n")[1][:30].decode() or said[9:12].decode(),
)
def test_a_request_that_is_turned_away_stops_no_neighbour(
    walled: Workshop, wall: Firewall, provider: Provider, said: bytes
) -> None:
    wall.rules.append(lambda method, path, body: said if b"attack" in body else None)
    bad, good = walled.ask(prompt="an attack on a firewall")["id"], walled.ask(prompt="a fox")["id"]
    assert set(walled.submit_next()) == {bad, good}
    assert not walled.row(bad).possibly_charged
    walled.ended(bad, "failed")
    later = walled.ask(prompt="another fox")["id"]
    assert walled.submit_next() == [later]
    for id in (good, later):
        finish(walled, provider, id)
        walled.ended(id, "completed")


@pytest.mark.hazard(58)
@pytest.mark.parametrize(
    "said",
    [
        answer(429, {"detail": "Throttled."}, retry_after="3600"),
        answer(503, "", retry_after="3600"),
        answer(302, "", location="https://elsewhere.example/"),
    ],
    ids=lambda said: said[9:12].decode(),
)
def test_what_the_file_store_asks_for_holds_up_nobody_who_needs_no_file_of_it(
    walled: Workshop, wall: Firewall, provider: Provider, said: bytes
) -> None:
    walled.ctx.catalog = _no_data_uris(walled.ctx.catalog)
    wall.stop("/files", said)
    video = walled.ask("video", asset_id=walled.upload(png()))["id"]
    assert walled.submit_next() == [video]
    image = walled.ask()["id"]
    assert walled.submit_next() == [image]
    finish(walled, provider, image)
    wall.open()
    walled.clock.forward(4000)
    assert walled.submit_next() == [video]
    finish(walled, provider, video)
    walled.ended(video, "completed")


@pytest.mark.parametrize("said", [answer(status, {"detail": "It has ended."}) for status in (404, 409, 422, 500)])
def test_a_cancel_that_comes_too_late_and_is_turned_away_loses_no_paid_file(
    walled: Workshop, wall: Firewall, provider: Provider, said: bytes
) -> None:
    wall.stop("/cancel", said)
    id = walled.ask()["id"]
    walled.submit_next()
    provider.ended(walled.row(id).provider_id or "")
    assert walled.cancel(id).status_code < 300
    walled.clock.forward(1)
    walled.look("processing")
    assert walled.stage(id) == "storing"
    walled.look("storing")
    walled.ended(id, "completed")


def test_a_cancel_that_is_turned_away_is_tried_again_while_it_runs(
    walled: Workshop, wall: Firewall, provider: Provider
) -> None:
    provider.spoil({"kind": "delay", "on": "run", "delay_s": 60})
    wall.stop("/cancel", answer(500), answer(500), None)
    id = walled.ask()["id"]
    walled.submit_next()
    walled.cancel(id)
    for _ in range(4):
        walled.clock.forward(31)
        walled.look("processing")
    walled.ended(id, "canceled")


def test_the_providers_own_403_still_stops_everybody_for_a_minute(walled: Workshop, wall: Firewall) -> None:
    wall.stop(
        "/predictions", answer(403, {"title": "Forbidden", "detail": "Your API token is not valid.", "status": 403})
    )
    id = walled.ask()["id"]
    walled.submit_next()
    assert walled.ended(id, "failed")["error"]["code"] == "provider_unavailable"
    walled.ask()
    assert walled.submit_next() == []
    walled.finished = False


JUNK_ITEMS: list[Any] = [
    None,
    3,
    "text",
    [],
    {},
    {"id": None},
    {"id": "x" * 300, "created_at": "soon"},
    {"id": 5, "status": "succeeded"},
    {"id": "é", "input": [], "webhook": 3},
]


@pytest.mark.hazard(58)
def test_unreadable_items_of_the_list_are_skipped_and_the_rest_is_used(
    walled: Workshop, wall: Firewall, provider: Provider
) -> None:
    provider.spoil({"kind": "reset_after"}, LOST)
    id = walled.ask(prompt="lost")["id"]
    walled.submit_next()
    ours = provider.http.get("/predictions").json()["results"]
    assert len(ours) == 1 and walled.stage(id) == "unclear"
    odd_time = {"id": "somebody", "status": "starting", "created_at": "yesterday"}
    pages = [
        answer(200, {"results": [*JUNK_ITEMS, odd_time], "next": f"{wall.origin}/v1/predictions?cursor=2"}),
        answer(200, {"results": [*JUNK_ITEMS, *ours, *JUNK_ITEMS], "next": None}),
    ]
    wall.stop("/predictions?", *pages, method="GET")
    walled.clock.forward(6)
    assert walled.look("unclear") == [id]
    assert walled.row(id).provider_id == ours[0]["id"]
    finish(walled, provider, id)
    walled.ended(id, "completed")
    assert len(provider.ledger["creates"]) == 1


@pytest.mark.parametrize(
    "page",
    [
        {"results": None},
        {"results": {}},
        {"results": "abc"},
        {},
        [],
        {"results": [], "next": "http://[::1"},
    ],
    ids=repr,
)
def test_a_list_that_is_none_gives_nobody_up(
    walled: Workshop, wall: Firewall, provider: Provider, page: object
) -> None:
    provider.spoil({"kind": "reset_after"}, LOST)
    id = walled.ask()["id"]
    walled.submit_next()
    wall.stop("/predictions?", answer(200, page), method="GET")
    walled.clock.forward(1_300)
    assert walled.look("unclear") == [id]
    assert walled.row(id).status == "unclear" and walled.row(id).attempts == 0
    wall.open()
    finish(walled, provider, id)
    walled.ended(id, "completed")


def test_what_is_not_allowed_is_moderated_when_it_is_refused_at_once(walled: Workshop, wall: Firewall) -> None:
    wall.stop("/predictions", answer(422, {"detail": "NSFW content detected in the prompt", "status": 422}))
    id = walled.ask()["id"]
    walled.submit_next()
    error = walled.ended(id, "failed")["error"]
    assert (error["code"], error["retryable"]) == ("moderated", False)
    assert not walled.row(id).possibly_charged


def test_a_throttled_create_waits_until_the_date_that_was_said(
    walled: Workshop, wall: Firewall, provider: Provider
) -> None:
    said = {"retry_after": "Sun, 06 Nov 1994 08:50:37 GMT", "date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    wall.stop("/predictions", answer(429, {"detail": "Throttled."}, **said))
    id = walled.ask()["id"]
    walled.submit_next()
    wall.open()
    walled.clock.forward(50)
    assert walled.submit_next() == []
    walled.clock.forward(20)
    assert walled.submit_next() == [id]
    finish(walled, provider, id)
    walled.ended(id, "completed")
