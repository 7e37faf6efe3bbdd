"""What an answer to a create means: taken, refused, try later, or nobody knows; and nothing is sent twice."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from auditor import creates_of
from emulating import TINY, Provider, running, until
from workshop import Workshop, working

from backend.emulator import Server, create
from backend.providers.base import Listed
from backend.providers.replicate.predictions import Predictions

LOST = {"kind": "webhook_lost"}


@pytest.mark.parametrize(
    "told",
    [
        {"retry_after": 30, "in_body": True, "in_header": False},
        {"retry_after": 30, "in_body": False, "in_header": True},
    ],
    ids=["body", "header"],
)
def test_a_throttled_create_waits_as_long_as_was_said_and_nothing_else_is_sent(
    bench: Workshop, provider: Provider, told: dict[str, Any]
) -> None:
    provider.spoil({"kind": "create_429", "times": 1, **told})
    first = bench.ask(prompt="the first")["id"]
    assert bench.submit_next() == [first]
    assert bench.stage(first) == "queued" and bench.get(first)["status"] == "pending"
    bench.ask(prompt="the second")
    bench.clock.forward(28)
    assert bench.submit_next() == [] and len(provider.ledger["creates"]) == 1
    bench.clock.forward(6)
    assert len(bench.submit_next()) == 2
    assert [create["created"] for create in creates_of(provider.ledger, first)] == [False, True]
    bench.finished = False


@pytest.mark.parametrize(
    ("fault", "code", "retryable"),
    [
        ("create_401", "provider_unavailable", True),
        ("create_402", "quota", True),
        ("create_422", "invalid_input", False),
    ],
)
def test_a_refused_create_fails_with_its_reason(
    bench: Workshop, provider: Provider, fault: str, code: str, retryable: bool
) -> None:
    provider.spoil({"kind": fault, "times": 1})
    id = bench.ask()["id"]
    bench.submit_next()
    failed = bench.ended(id, "failed")
    assert (failed["error"]["code"], failed["error"]["retryable"]) == (code, retryable)
    assert not bench.row(id).possibly_charged
    second = bench.ask(prompt="after it")["id"]
    sent_at_once = fault == "create_422"
    assert bench.submit_next() == ([second] if sent_at_once else [])
    bench.clock.forward(61)
    assert bench.submit_next() == ([] if sent_at_once else [second])
    bench.finished = False


UNCLEAR = [
    {"kind": "create_500_after", "status": 500},
    {"kind": "create_500_after", "status": 502},
    {"kind": "create_500_after", "status": 503},
    {"kind": "reset_after"},
    {"kind": "create_bad_json"},
]


@pytest.mark.parametrize("fault", UNCLEAR, ids=lambda fault: f"{fault['kind']}-{fault.get('status', '')}")
def test_an_unclear_create_is_adopted_by_its_webhook(shop: Workshop, provider: Provider, fault: dict[str, Any]) -> None:
    provider.spoil({**fault, "times": 1})
    id = shop.ask()["id"]
    shop.ended(id, "completed")
    assert len(creates_of(provider.ledger, id)) == 1
    assert provider.ledger["lists"] == 0


@pytest.mark.parametrize("fault", UNCLEAR, ids=lambda fault: f"{fault['kind']}-{fault.get('status', '')}")
def test_an_unclear_create_without_webhook_is_found_in_the_list(
    bench: Workshop, provider: Provider, fault: dict[str, Any]
) -> None:
    provider.spoil({**fault, "times": 1}, LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    assert bench.stage(id) == "unclear" and bench.get(id)["status"] == "processing"
    bench.clock.forward(6)
    assert bench.look("unclear") == [id]
    _finish(bench)
    bench.ended(id, "completed")
    assert len(creates_of(provider.ledger, id)) == 1


def _finish(bench: Workshop) -> None:
    """Ask and store until nothing is left to do."""

    def step() -> bool:
        bench.clock.forward(11)
        return not (bench.look("processing") + bench.look("storing"))

    until(step)


class Terse(Predictions):
    """A list that does not show to whom the provider reports."""

    async def between(self, since_ms: int, until_ms: int) -> list[Listed]:
        return [replace(listed, webhook=None) for listed in await super().between(since_ms, until_ms)]


def _make_terse(bench: Workshop) -> None:
    replicate: Any = bench.ctx.providers["replicate"]
    replicate.listing = Terse(replicate)


def test_a_list_that_does_not_show_webhooks_still_finds_an_equal_request(bench: Workshop, provider: Provider) -> None:
    _make_terse(bench)
    provider.spoil({"kind": "reset_after", "match": {"prompt_contains": "lost"}}, LOST)
    other, id = bench.ask(prompt="another")["id"], bench.ask(prompt="lost", aspect_ratio="1:1")["id"]
    bench.submit_next()
    assert (bench.stage(other), bench.stage(id)) == ("processing", "unclear")
    bench.clock.forward(6)
    bench.look("unclear")
    _finish(bench)
    bench.ended(id, "completed")
    bench.ended(other, "completed")


def test_equal_requests_never_share_a_prediction(bench: Workshop, provider: Provider) -> None:
    _make_terse(bench)
    provider.spoil({"kind": "reset_after"}, LOST)
    ids = {item["id"] for item in bench.ask(prompt="the same", copies=4)}
    bench.submit_next()
    bench.clock.forward(6)
    assert set(bench.look("unclear")) == ids
    _finish(bench)
    assert {bench.ended(id, "completed")["id"] for id in ids} == ids
    assert len({bench.row(id).provider_id for id in ids}) == 4


def test_an_equal_request_that_is_being_sent_is_not_robbed_of_its_prediction(
    bench: Workshop, provider: Provider
) -> None:
    _make_terse(bench)
    provider.spoil(
        {"kind": "reset_before", "times": 1}, {"kind": "create_hang", "delay_s": 1.5, "match": {"nth": 2}}, LOST
    )
    ids = [item["id"] for item in bench.ask(prompt="the same", copies=2)]
    sending = threading.Thread(target=bench.submit_next)
    sending.start()
    until(lambda: any(create["created"] for create in provider.ledger["creates"]))
    until(lambda: any(bench.stage(id) == "unclear" for id in ids))
    bench.clock.forward(6)
    (unclear,) = bench.look("unclear")
    assert bench.stage(unclear) == "unclear"
    sending.join()
    (sent,) = set(ids) - {unclear}
    assert bench.row(sent).provider_id and bench.row(unclear).provider_id is None
    bench.finished = False


@pytest.mark.parametrize("kind", ["create_500", "create_502", "create_503", "reset_before"])
def test_a_create_nobody_ever_hears_of_again_ends_as_unknown_and_is_not_resent(
    bench: Workshop, provider: Provider, kind: str
) -> None:
    provider.spoil({"kind": kind})
    id = bench.ask()["id"]
    bench.submit_next()
    provider.spoil()
    looks = 0
    for seconds in (6, 11, 31, 91, 121, 121, 121, 121, 121, 121, 121):
        assert bench.stage(id) == "unclear"
        bench.clock.forward(seconds)
        assert bench.submit_next() == []
        looks += len(bench.look("unclear"))
    failed = bench.ended(id, "failed")
    assert looks >= 3 and provider.ledger["lists"] == looks
    assert failed["error"]["code"] == "submit_unknown" and failed["error"]["retryable"]
    assert bench.row(id).possibly_charged
    assert len(creates_of(provider.ledger, id)) == 1


def test_a_list_that_cannot_be_read_gives_nobody_up(bench: Workshop, provider: Provider) -> None:
    """A prediction that is paid for must not be lost because the list was down at the wrong moment."""
    provider.spoil({"kind": "reset_after"}, LOST)
    id = bench.ask()["id"]
    bench.submit_next()
    bench.ctx.providers["replicate"].base_url = f"http://127.0.0.1:{_closed_port()}/v1"
    bench.clock.forward(1000)
    assert bench.look("unclear") == [id]
    assert bench.stage(id) == "unclear"
    bench.ctx.providers["replicate"].base_url = f"{provider.server.origin}/v1"
    bench.clock.forward(121)
    bench.look("unclear")
    _finish(bench)
    bench.ended(id, "completed")


def test_a_create_that_hangs_is_adopted_while_it_hangs(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "create_hang", "delay_s": 2.0, "times": 1})
    id = shop.ask()["id"]
    shop.ended(id, "completed")
    entries = creates_of(provider.ledger, id)
    assert len(entries) == 1 and not entries[0]["answered"]


def test_a_webhook_may_come_before_the_answer(shop: Workshop, provider: Provider) -> None:
    provider.spoil({"kind": "webhook_before_answer"})
    id = shop.ask()["id"]
    shop.ended(id, "completed")
    assert len(creates_of(provider.ledger, id)) == 1


@pytest.mark.parametrize("fault", [{"kind": "create_hang", "delay_s": 1.0}, {"kind": "reset_after"}], ids=str)
def test_what_a_webhook_adopted_has_a_deadline_too(shop: Workshop, provider: Provider, fault: dict[str, Any]) -> None:
    """Else a prediction that the provider forgets would be asked about for ever."""
    provider.spoil({**fault, "times": 1}, {"kind": "stuck", "times": 1})
    id = shop.ask()["id"]
    shop.reach(id, "processing")
    assert shop.row(id).deadline_at
    shop.forward(1000)
    assert shop.ended(id)["status"] in ("canceled", "failed")


def test_an_unreachable_provider_gets_it_when_it_is_back(tmp_path: Path, provider: Provider) -> None:
    port = _closed_port()
    with working(tmp_path, provider, replicate_base_url=f"http://127.0.0.1:{port}/v1") as shop:
        id = shop.ask()["id"]
        until(lambda: shop.row(id).polls >= 2)
        assert shop.stage(id) in ("queued", "submitting") and shop.get(id)["status"] == "pending"
        back = Server(create(TINY), port=port)
        with running(back):
            shop.forward(60)
            shop.ended(id, "completed")
            assert len(creates_of(Provider(back, provider.http).ledger, id)) == 1


def test_a_provider_that_takes_no_connection_costs_a_wait_and_not_the_request(
    tmp_path: Path, provider: Provider
) -> None:
    """A full backlog: the handshake never ends, so nothing was sent."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full = [socket.socket() for _ in range(3)]
        for each in full:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with working(tmp_path, provider, replicate_base_url=origin) as shop:
            shop.finished = False
            id = shop.ask()["id"]
            until(lambda: shop.row(id).polls >= 1)
            assert shop.row(id).status == "queued"
        for each in full:
            each.close()


def test_twenty_at_once_are_sent_once_each(shop: Workshop, provider: Provider) -> None:
    asked: list[str] = []
    threads = [threading.Thread(target=lambda: asked.extend(shop.ask_many(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for id in asked:
        shop.ended(id, "completed")
    assert len(provider.ledger["creates"]) == len(asked) == 20


def _closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])
