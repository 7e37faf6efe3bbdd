"""Clients are told by webhook: in the Standard Webhooks form, on a schedule, and one slow receiver holds up nobody."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import svix
from api_service import Service, Tenant, png, running
from crashes.notify import at_a_letter
from crashes.play import play
from crashes.stories import CASES
from emulating import emulating, until
from receivers import (
    Receiver,
    deliveries,
    dripping,
    endless,
    endpoint,
    hanging,
    happen,
    receiving,
    status,
    tell,
)
from workshop import Clock, working

from backend.core import ids
from backend.core.events import Event
from backend.core.generation import Generation
from backend.core.webhooks import SCHEDULE_S, Endpoint, new_secret, retry_after_ms, wait_ms
from backend.db import events, feed, webhook_deliveries, webhook_lists
from backend.db.connection import Tx
from backend.http import Http
from backend.live import shown
from backend.steps import announce
from backend.steps.announce import sending
from backend.upkeep import tidy

INSIDE = {"webhook_allow_cidrs": "127.0.0.0/8"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service whose operator allows receivers on this machine, with a clock that can be put forward."""
    before = ids._last
    with running(tmp_path, **INSIDE) as found:
        found.ctx.now = Clock()
        yield found
    ids._last = before  # ids are never smaller than those of a clock that was ahead


@pytest.fixture
def who(service: Service) -> Tenant:
    return service.tenant()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def forward(service: Service, seconds: float) -> None:
    assert isinstance(service.ctx.now, Clock)
    service.ctx.now.forward(seconds)


def show(service: Service, who: Tenant, id: str) -> dict[str, Any]:
    found: dict[str, Any] = service.ask("GET", f"/api/v2/webhook-endpoints/{id}", key=who.key).json()
    return found


def verified(secret: str, letter: Any) -> Any:
    """The body, as both libraries that receivers use read it."""
    theirs = standardwebhooks.Webhook(secret).verify(letter.body, letter.headers)
    svix.Webhook(secret).verify(letter.body, letter.headers)  # raises when it is not
    return theirs


def test_what_happens_to_a_generation_reaches_its_client_signed(tmp_path: Path, receiver: Receiver) -> None:
    with emulating() as provider, working(tmp_path, provider, **INSIDE) as shop:
        client = shop.http.get("/api/v2/clients").json()["items"][0]["id"]
        made = shop.http.post("/api/v2/webhook-endpoints", json={"url": receiver.url, "client_id": client}).json()
        own = shop.http.get("/api/v2/webhook-secret", params={"client_id": client}).json()["secret"]
        id = shop.ask(webhook_url=f"{receiver.origin}/own", metadata={"ä": "ö"})["id"]
        shop.ended(id, "completed")
        until(lambda: len(receiver.got) == 4)
    shown = shop_events(receiver, {"/hook": made["secret"], "/own": own})
    assert sorted(shown) == [
        ("/hook", "generation.completed"),
        ("/hook", "generation.processing"),
        ("/own", "generation.completed"),
        ("/own", "generation.processing"),
    ]
    ended, begun = shown["/own", "generation.completed"], shown["/hook", "generation.processing"]
    assert (ended["data"]["id"], ended["data"]["status"], ended["data"]["metadata"]) == (id, "completed", {"ä": "ö"})
    assert ended["data"]["url"] and begun["data"]["url"] is None
    assert ended["id"] == shown["/hook", "generation.completed"]["id"] != begun["id"]


def shop_events(receiver: Receiver, secrets: dict[str, str]) -> dict[tuple[str, str], Any]:
    found = {}
    for letter in receiver.got:
        event = verified(secrets[letter.path], letter)
        assert (event["id"], letter.headers["content-type"]) == (letter.id, "application/json")
        found[letter.path, event["type"]] = event
    return found


def test_an_endpoint_hears_of_what_it_asked_for_and_of_nothing_else(service: Service, who: Tenant) -> None:
    with receiving() as all_ears, receiving() as picky, receiving() as others:
        endpoint(service, who, all_ears.url)
        endpoint(service, who, picky.url, "generation.failed", "budget.warning")
        endpoint(service, service.tenant("other"), others.url)
        happen(service, who)
        service.failed(service.generate(who)["id"])
        service.run(
            service.ctx.db.write(lambda tx: events.warn(tx, who.client_id, None, {"spent": 8}, service.ctx.now()))
        )
        tell(service)
    assert sorted(letter.type for letter in all_ears.got) == [
        "budget.warning",
        "generation.canceled",
        "generation.failed",
    ]
    assert sorted(letter.type for letter in picky.got) == ["budget.warning", "generation.failed"]
    assert others.got == []
    (warning,) = [letter for letter in picky.got if letter.type == "budget.warning"]
    assert json.loads(warning.body)["data"] == {"spent": 8}


def test_after_a_rotation_both_secrets_verify_for_a_day_and_then_the_new_one(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    made = endpoint(service, who, receiver.url)
    rotated = service.ask("POST", f"/api/v2/webhook-endpoints/{made['id']}/rotate", {}, key=who.key).json()
    left_s = datetime.fromisoformat(rotated["rotating_until"]).timestamp() - datetime.now(UTC).timestamp()
    assert rotated["secret"] != made["secret"] and 86_000 < left_s <= 86_400
    happen(service, who)
    tell(service)
    (letter,) = receiver.got
    assert verified(made["secret"], letter) == verified(rotated["secret"], letter)
    service.run(service.ctx.db.write(lambda tx: tx.run("UPDATE webhook_endpoints SET old_secret_until = 1")))
    assert show(service, who, made["id"])["rotating_until"] is None  # as a day later, which no receiver would believe
    happen(service, who)
    tell(service)
    verified(rotated["secret"], receiver.got[1])
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verified(made["secret"], receiver.got[1])


def test_a_rotation_whose_answer_was_lost_leaves_the_secret_in_use_valid(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    made = endpoint(service, who, receiver.url)
    path = f"/api/v2/webhook-endpoints/{made['id']}"
    secrets = [made["secret"]]
    for rotations in (2, 8):
        secrets += [service.ask("POST", f"{path}/rotate", {}, key=who.key).json()["secret"] for _ in range(rotations)]
        happen(service, who)
        tell(service)
        for secret in secrets[-5:]:
            verified(secret, receiver.got[-1])
    assert receiver.got[-1].headers["webhook-signature"].count(",") == 5
    shown = service.ask("GET", path, key=who.key).body.decode()
    assert not any(secret in shown for secret in secrets)


def test_a_failed_delivery_is_tried_ten_times_on_the_schedule_under_one_id(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    receiver.usual = status(500, body=b"no")
    made = endpoint(service, who, receiver.url)
    happen(service, who)
    tell(service)
    for number, wait_s in enumerate(SCHEDULE_S):
        forward(service, wait_s - 1)
        assert tell(service) == [], f"it came before its time after attempt {number + 1}"
        forward(service, wait_s * 0.2 + 2)
        assert len(tell(service)) == 1, f"it did not come after attempt {number + 1}"
    (shown,) = deliveries(service, who)
    assert (shown["status"], shown["next_attempt_at"]) == ("failed", None)
    assert [(one["number"], one["status_code"], one["answer"]) for one in shown["attempts"]] == [
        (number, 500, "no") for number in range(1, 11)
    ]
    assert set(receiver.ids) == {shown["event_id"]}
    assert len({letter.headers["webhook-timestamp"] for letter in receiver.got}) == 10
    assert show(service, who, made["id"])["enabled"]
    forward(service, 10**6)
    assert tell(service) == []


def test_the_waits_are_spread_by_a_fifth_at_most_and_end_after_the_tenth() -> None:
    for number, wait_s in enumerate(SCHEDULE_S, start=1):
        waits = {wait_ms(number) for _ in range(50)}
        assert len(waits) > 5 and wait_s * 1000 <= min(waits) <= max(waits) <= wait_s * 1200  # type: ignore[type-var]
    assert wait_ms(10) is None
    assert wait_ms(1, 3_600_000) == 3_600_000
    assert wait_ms(5, 1) in range(18_000_000, 21_600_001)


@pytest.mark.hazard(51)
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("120", 120_000),
        ("0", 0),
        ("999999999999", 86_400_000),
        (format_datetime(datetime.fromtimestamp(1_000_060, UTC), usegmt=True), 60_000),
        (format_datetime(datetime.fromtimestamp(999_000, UTC), usegmt=True), 0),
        ("Monday, 12-Jan-70 13:47:40 GMT", 60_000),
        ("Mon Jan 12 13:47:40 1970", 60_000),
        (" 120 ", 120_000),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400_000),
        ("-5", 0),
        ("1e9", 0),
        ("\uff11\uff12", 0),
        ("soon", 0),
        ("", 0),
        ("9" * 5000, 0),
        (None, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_a_day(text: str | None, wanted: int) -> None:
    assert retry_after_ms(text, 1_000_000_000) == wanted


def test_a_retry_after_makes_it_later_and_never_earlier(service: Service, who: Tenant, receiver: Receiver) -> None:
    endpoint(service, who, receiver.url)
    receiver.answers = [status(429, "Retry-After: 600\r\n"), status(503, "Retry-After: 1\r\n")]
    happen(service, who)
    tell(service)
    forward(service, 595)
    assert tell(service) == []
    forward(service, 6)
    assert len(tell(service)) == 1
    forward(service, 250)
    assert tell(service) == []
    forward(service, 120)
    tell(service)
    assert [one["status"] for one in deliveries(service, who)] == ["delivered"]


@pytest.mark.hazard(51)
def test_a_redirect_is_a_failure_and_is_not_followed(service: Service, who: Tenant) -> None:
    with receiving() as there, receiving(usual=status(307, f"Location: {there.url}\r\n")) as here:
        endpoint(service, who, here.url)
        happen(service, who)
        tell(service)
        (shown,) = deliveries(service, who)
    assert (shown["status"], shown["attempts"][0]["status_code"]) == ("pending", 307)
    assert there.got == []


@pytest.mark.hazard(51)
def test_410_disables_the_endpoint_and_all_that_waits_for_it_has_failed(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    made = endpoint(service, who, receiver.url)
    receiver.usual = status(500)
    happen(service, who)
    tell(service)
    receiver.usual = status(410)
    happen(service, who)
    tell(service)
    shown = show(service, who, made["id"])
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "It answered 410 Gone.")
    assert {one["status"] for one in deliveries(service, who)} == {"failed"}
    happen(service, who)
    assert len(deliveries(service, who)) == 2
    receiver.usual = status(200)
    service.ask("PATCH", f"/api/v2/webhook-endpoints/{made['id']}", {"enabled": True}, key=who.key)
    happen(service, who)
    tell(service)
    assert [one["status"] for one in deliveries(service, who)] == ["delivered", "failed", "failed"]


def test_410_from_a_requests_own_address_ends_that_delivery_alone(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    receiver.answers = [status(410)]
    happen(service, who, webhook_url=receiver.url)
    tell(service)
    happen(service, who, webhook_url=receiver.url)
    tell(service)
    assert [one["status"] for one in deliveries(service, who)] == ["delivered", "failed"]


def test_five_days_of_failures_disable_an_endpoint_and_one_success_between_them_does_not(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    made = endpoint(service, who, receiver.url)

    def day(code: int) -> Any:
        receiver.usual = status(code)
        happen(service, who)
        tell(service)
        forward(service, 86_400)
        return show(service, who, made["id"])

    for _ in range(4):
        assert day(500)["failing_since"]
    assert day(200)["failing_since"] is None
    for _ in range(5):
        assert day(500)["enabled"]
    shown = day(500)
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "Every attempt of five days failed.")
    service.ask("PATCH", f"/api/v2/webhook-endpoints/{made['id']}", {"enabled": True}, key=who.key)
    assert day(500)["enabled"]


def test_an_old_failure_and_one_of_today_are_not_five_days(service: Service, who: Tenant, receiver: Receiver) -> None:
    made = endpoint(service, who, receiver.url)
    receiver.usual = status(500)
    happen(service, who)
    for wait_s in (*SCHEDULE_S, 30 * 86_400):
        assert tell(service)
        forward(service, wait_s * 1.3)
    happen(service, who)
    assert len(tell(service)) == 1
    shown = show(service, who, made["id"])
    assert shown["enabled"]
    assert shown["failing_since"] >= deliveries(service, who)[0]["attempts"][0]["began_at"]


def test_what_the_former_address_says_is_no_word_about_the_endpoint(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    with receiving() as other:
        made = endpoint(service, who, receiver.url)

        async def move_and_be_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.to_thread(move)
            writer.write(status(410))
            await writer.drain()

        def move() -> None:
            change = {"url": other.url}
            assert service.ask("PATCH", f"/api/v2/webhook-endpoints/{made['id']}", change, key=who.key).status == 200

        receiver.answers = [status(500), move_and_be_gone]
        happen(service, who)
        tell(service)
        assert show(service, who, made["id"])["failing_since"]
        forward(service, 10)
        tell(service)
        shown = show(service, who, made["id"])
        assert (shown["enabled"], shown["failing_since"], shown["url"]) == (True, None, other.url)
        forward(service, 400)
        tell(service)
        (sent,) = deliveries(service, who)
        assert (sent["status"], sent["url"], len(other.got)) == ("delivered", other.url, 1)


@pytest.mark.hazard(51)
def test_a_receiver_that_hangs_holds_up_neither_others_nor_more_than_four_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "TOTAL_S", 50.0)
    release = threading.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.get_running_loop().run_in_executor(None, release.wait, 60)
        writer.write(status(200))

    with (
        emulating() as provider,
        receiving(usual=held) as slow,
        receiving() as quick,
        working(tmp_path, provider, **INSIDE) as shop,
    ):
        client = shop.http.get("/api/v2/clients").json()["items"][0]["id"]
        for receiver in (slow, quick):
            wanted = {"url": receiver.url, "client_id": client}
            assert shop.http.post("/api/v2/webhook-endpoints", json=wanted).status_code == 201
        shop.ask_many(8)
        until(lambda: len(quick.got) == 16)
        assert len(slow.got) == 4
        release.set()
        until(lambda: len(slow.got) == 16)
    assert set(slow.ids) == set(quick.ids)


def test_places_are_shared_between_receivers_and_between_clients(service: Service) -> None:
    first, second = service.tenant("first"), service.tenant("second")
    for number in range(12):
        endpoint(service, first, f"http://127.0.0.1:9/{number}")
    endpoint(service, second, "http://127.0.0.1:9/only")
    for _ in range(6):
        happen(service, first)
    happen(service, second)

    def claim(limit: int) -> list[str]:
        return [row.client_id for row in service.run(announce.claim(service.ctx, "w", limit))]

    assert len(claim(5)) == 5
    assert second.client_id in claim(5)  # at the latest when the first has something under way
    while claim(12):
        pass
    rows = service.run(
        service.ctx.db.read(
            lambda tx: tx.all(
                "SELECT client_id, target, COUNT(*) AS n FROM webhook_deliveries WHERE lease_owner = 'w' "
                "GROUP BY client_id, target"
            )
        )
    )
    assert max(row["n"] for row in rows) <= 4
    assert sum(row["n"] for row in rows if row["client_id"] == first.client_id) == 32


@pytest.mark.hazard(51)
@pytest.mark.parametrize("peer", [hanging, dripping], ids=["hangs", "drips"])
def test_an_attempt_has_one_deadline_for_everything(
    service: Service, who: Tenant, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sending.TOTAL_S == 15
    monkeypatch.setattr(sending, "TOTAL_S", 0.5)
    with receiving(usual=peer) as receiver:
        endpoint(service, who, receiver.url)
        happen(service, who)
        tell(service)
    ((attempt,),) = [one["attempts"] for one in deliveries(service, who)]
    assert attempt["status_code"] is None and "no complete answer" in attempt["error"]
    assert attempt["duration_ms"] >= 400


@pytest.mark.hazard(51)
def test_of_a_huge_answer_64_kb_are_kept_as_text(service: Service, who: Tenant) -> None:
    with receiving(usual=endless) as receiver:
        endpoint(service, who, receiver.url)
        happen(service, who)
        tell(service)
        (listed,) = deliveries(service, who)
        shown = service.ask("GET", f"/api/v2/webhook-deliveries/{listed['id']}", key=who.key).json()
    assert shown["status"] == "delivered"
    answer = shown["attempts"][0]["answer"]
    assert "\0" not in answer and 40_000 < len(answer.encode()) <= 65_536
    assert listed["attempts"][0]["answer"] == answer[:1000]


@pytest.mark.hazard(3, 13, 51)
def test_a_name_that_leads_inside_at_the_moment_of_sending_is_not_called(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a name that was public is pointed at this machine later."""
    with running(tmp_path) as service:
        who = service.tenant()

        async def inward(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        service.ctx.http = Http(resolver=inward)
        endpoint(service, who, "http://hooks.example.com/hook")
        happen(service, who)
        tell(service)
        ((attempt,),) = [one["attempts"] for one in deliveries(service, who)]
    assert (attempt["status_code"], attempt["answer"]) == (None, None)
    assert attempt["error"] == "This address must not be reached from here."
    assert receiver.got == []


@pytest.mark.hazard(51)
def test_nobody_is_told_by_calling_this_service_itself(service: Service, who: Tenant) -> None:
    for host in ("localhost", "127.0.0.1", "127.0.0.2", "LOCALHOST.", "[::1]"):
        url = f"http://{host}:{service.port}/healthz"
        answer = service.ask("POST", "/api/v2/webhook-endpoints", {"url": url}, key=who.key)
        assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "url"), url


def test_a_receiver_that_is_not_there_is_a_failed_attempt_with_its_reason(service: Service, who: Tenant) -> None:
    endpoint(service, who, "http://127.0.0.1:9/hook")
    happen(service, who)
    tell(service)
    ((attempt,),) = [one["attempts"] for one in deliveries(service, who)]
    assert attempt["error"].startswith("No connection could be made")


def test_a_delivery_that_a_dead_worker_had_is_made_when_the_lease_ends(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    endpoint(service, who, receiver.url)
    happen(service, who)
    (taken,) = service.run(announce.claim(service.ctx, "a dead worker", 10))
    assert tell(service) == []
    forward(service, sending.LEASE_MS / 1000 + 1)
    assert [row.id for row in tell(service)] == [taken.id]
    service.run(announce.send(service.ctx, taken))  # it was only asleep: what it finds out changes nothing
    assert receiver.ids == [taken.event_id] * 2
    ((attempt,),) = [one["attempts"] for one in deliveries(service, who)]
    assert attempt["number"] == 2


@pytest.mark.parametrize("code", [200, 500])
def test_what_a_worker_finds_out_after_its_lease_changes_nothing(
    service: Service, who: Tenant, receiver: Receiver, code: int
) -> None:
    receiver.usual = status(code)
    endpoint(service, who, receiver.url)
    happen(service, who)
    (taken,) = service.run(announce.claim(service.ctx, "asleep", 10))
    forward(service, sending.LEASE_MS / 1000 + 1)
    (held,) = service.run(announce.claim(service.ctx, "awake", 10))
    service.run(announce.send(service.ctx, taken))
    assert service.run(service.ctx.db.read(lambda tx: webhook_lists.get(tx, held.id))) == held
    assert deliveries(service, who)[0]["attempts"] == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("round", [0, 3])
def test_a_service_killed_while_it_sends_tells_everybody_all_under_one_id(round: int) -> None:
    (case,) = [case for case in CASES if case.story is at_a_letter]
    kills, found = play(case, round)
    assert kills == 1 and not found


def test_ends_of_the_process_use_up_no_attempt_of_the_schedule(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    endpoint(service, who, receiver.url)
    receiver.usual = status(500)
    happen(service, who)
    for _ in range(12):
        service.run(announce.claim(service.ctx, "killed", 10))
        forward(service, sending.LEASE_MS / 1000 + 1)
    tell(service)
    (shown,) = deliveries(service, who)
    assert (shown["status"], len(shown["attempts"])) == ("pending", 1)
    for _ in range(sending.MOST_CLAIMS):
        forward(service, 86_400)
        service.run(announce.claim(service.ctx, "killed", 10))
    forward(service, 86_400)
    tell(service)
    assert deliveries(service, who)[0]["status"] == "failed"


def test_a_clock_that_is_put_back_leaves_nothing_waiting(service: Service, who: Tenant, receiver: Receiver) -> None:
    endpoint(service, who, receiver.url)
    forward(service, 10**8)
    happen(service, who)
    forward(service, -(10**8))
    assert tell(service) == []
    assert service.run(announce.heed_the_clock(service.ctx)) == 1
    assert len(tell(service)) == 1


def test_what_is_deleted_is_told_to_nobody(service: Service, who: Tenant, receiver: Receiver) -> None:
    endpoint(service, who, receiver.url)
    id = happen(service, who)
    assert service.ask("DELETE", f"/api/v2/generations/{id}", key=who.key).status == 204
    assert tell(service) == [] and deliveries(service, who) == []
    gone = endpoint(service, service.tenant(), receiver.url)
    happen(service, who, webhook_url=receiver.url)
    other = service.tenant("other")
    listener = endpoint(service, other, receiver.url)
    happen(service, other)
    assert service.ask("DELETE", f"/api/v2/webhook-endpoints/{listener['id']}", key=other.key).status == 204
    assert deliveries(service, other) == []
    assert service.ask("DELETE", f"/api/v2/clients/{who.client_id}").status == 204
    assert service.ask("DELETE", f"/api/v2/clients/{gone['client_id']}").status == 204
    assert tell(service) == []
    service.run(tidy.tidy(service.ctx))
    for table in ("webhook_deliveries", "webhook_attempts", "webhook_endpoints"):
        assert count(service, table) == 0, table
    assert count(service, "clients") == 1


def count(service: Service, table: str) -> int:
    row = service.run(service.ctx.db.read(lambda tx: tx.one(f"SELECT COUNT(*) AS n FROM {table}")))  # noqa: S608
    return int(row["n"])


def test_what_was_told_is_forgotten_after_its_time_and_what_is_pending_is_not(
    service: Service, who: Tenant, receiver: Receiver
) -> None:
    endpoint(service, who, receiver.url)
    happen(service, who)
    tell(service)
    receiver.usual = status(500)
    happen(service, who)
    tell(service)
    forward(service, 91 * 86_400)
    service.run(tidy.tidy(service.ctx))
    assert [one["status"] for one in deliveries(service, who)] == ["pending"]
    assert count(service, "webhook_attempts") == 1


def test_the_longest_metadata_arrives_whole(service: Service, who: Tenant, receiver: Receiver) -> None:
    made = endpoint(service, who, receiver.url)
    metadata = {f"{number:02d}" + "ä" * 98: "\u2028\U0001f600" * 500 for number in range(50)}
    happen(service, who, metadata=metadata)
    tell(service)
    assert verified(made["secret"], receiver.got[0])["data"]["metadata"] == metadata


def test_an_event_and_its_deliveries_are_one_transaction(service: Service, who: Tenant) -> None:
    endpoint(service, who, "http://127.0.0.1:9/hook")
    id = service.generate(who)["id"]

    async def broken(tx: Any, delivery: Any) -> None:
        raise RuntimeError("as if the disk were full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhook_deliveries, "insert", broken)
        assert service.ask("POST", f"/api/v2/generations/{id}/cancel", {}, key=who.key).status == 500
    assert service.ask("GET", f"/api/v2/generations/{id}", key=who.key).json()["status"] == "pending"
    assert count(service, "events") == 0


def test_an_event_is_told_in_the_same_words_on_the_next_day(service: Service, who: Tenant) -> None:
    id = service.generate(who)["id"]
    service.completed(id, png())

    async def look(tx: Tx) -> tuple[Event, Generation]:
        ((event, row),) = (await feed.page(tx, feed.Topic("generation", id), "", 10))[-1:]
        assert row is not None
        return event, row

    told = service.run(service.ctx.db.read(look))
    tomorrow = replace(service.ctx, now=lambda: service.ctx.now() + 86_400_000)
    assert shown.event(service.ctx, *told)["data"]["url"]
    assert shown.event(tomorrow, *told) == shown.event(service.ctx, *told)


def test_of_two_events_the_older_goes_first(service: Service, who: Tenant, receiver: Receiver) -> None:
    endpoint(service, who, receiver.url)
    first, second = happen(service, who), happen(service, who)
    for _ in range(2):
        (row,) = service.run(announce.claim(service.ctx, "w", 1))
        service.run(announce.send(service.ctx, row))
    assert [json.loads(letter.body)["data"]["id"] for letter in receiver.got] == [first, second]


def test_an_old_secret_signs_until_its_time_and_not_after() -> None:
    made = Endpoint("e", "c", "u", (), new_secret(), None, 99, None, None, None, 1)
    assert made.signing(1) == [made.secret]
    assert replace(made, old_secret="whsec_old").signing(98) == [made.secret, "whsec_old"]
    assert replace(made, old_secret="whsec_old").signing(99) == [made.secret]
