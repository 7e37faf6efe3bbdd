"""The SQL is the one dialect that SQLite and PostgreSQL share: every statement is run on both."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from postgresql import PostgresTx, postgres

import backend.db
from backend.core import ids
from backend.core.errors import BudgetExceeded, WrongStatus
from backend.core.events import Event
from backend.core.generation import Failure, Generation
from backend.core.ids import floor_id
from backend.core.outcomes import ProviderWebhook
from backend.core.people import ApiKey, Asset, Caller, Campaign, Client
from backend.core.webhooks import Attempt, Endpoint
from backend.db import (
    assets,
    audit,
    audit_lists,
    balances,
    bills,
    campaigns,
    claims,
    clients,
    dependencies,
    events,
    feed,
    generations,
    holdings,
    idempotency_keys,
    keys,
    leases,
    lists,
    operations,
    provider_webhooks,
    queue,
    restores,
    sources,
    submits,
    usage,
    webhook_attempts,
    webhook_claims,
    webhook_deliveries,
    webhook_endpoints,
    webhook_lists,
    webhook_retention,
    webhook_secrets,
)
from backend.db.audit import SYSTEM, Subject
from backend.db.connection import Tx
from backend.db.feed import Topic
from backend.db.holdings import Held
from backend.db.lists import Filters
from backend.db.migrate import migrate
from backend.db.sqlite import SqliteDb
from backend.db.versions import known, schema_file
from backend.db.webhook_claims import Target
from backend.db.webhook_lists import DeliveryFilter


async def shape(connection: asyncpg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Columns, indexes and constraints of the connection's schema."""
    queries = {
        "columns": """
            SELECT table_name, column_name, data_type, is_nullable, column_default
            FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2
        """,
        "indexes": """
            SELECT tablename, indexname, REPLACE(indexdef, schemaname || '.', '')
            FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1, 2
        """,
        "constraints": """
            SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = current_schema()::regnamespace ORDER BY 1, 2
        """,
    }
    return {name: [tuple(row) for row in await connection.fetch(sql)] for name, sql in queries.items()}


async def test_the_schema_and_the_numbered_migrations_make_the_same_database_on_postgresql() -> None:
    async with postgres() as whole, postgres() as steps:
        await whole.execute(schema_file().read_text("utf-8"))
        for migration in known():
            await steps.execute(migration.sql)
        assert await shape(whole) == await shape(steps)
        assert len((await shape(whole))["columns"]) > 100


class Watched:
    """Calls the functions of backend/db and keeps what they answered, and which of them were called."""

    def __init__(self, tx: Tx) -> None:
        self.tx = tx
        self.answers: list[Any] = []
        self.called: set[str] = set()

    async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.called.add(f"{function.__module__}.{function.__name__}")
        try:
            answer = await function(self.tx, *args, **kwargs)
        except (WrongStatus, BudgetExceeded) as error:
            answer = str(error)
        self.answers.append((function.__name__, answer))
        return answer


def id_of(n: int) -> str:
    return floor_id(1_000_000)[:-3] + f"{n:03x}"


def made(n: int, **more: Any) -> Generation:
    row: dict[str, Any] = {"id": id_of(n), "kind": "image", "status": "queued", "client_id": "c1", "campaign_id": "k1"}
    row |= {"provider": "p", "model": "m", "prompt": f"Übergrüße {n}", "source": {}, "params": {"seed": 1}}
    row |= {"metadata": {"ä": "ö"}, "nonce": "n", "created_at": 1, "due_at": 1}
    return Generation(**(row | more))


async def set_up(call: Watched) -> None:
    for name in ("c1", "c2"):
        await call(clients.insert, Client(name, name, 1))
        await call(campaigns.insert, Campaign(f"k{name[1]}", name, "Frühling", 1))
    key = ApiKey("key", "c1", "n", "prefix", "hash", False, None, "5/minute", 1, None, None)
    await call(keys.insert, key)
    await call(keys.insert, replace(key, id="admin", prefix="other", client_id=None, admin=True, expires_at=5))
    await call(keys.insert, replace(key, id="of k2", prefix="third", client_id="c2", campaign_id="k2"))
    asset = Asset("a1", "c1", "video", None, "a1.mp4", "video/mp4", 1 << 40, "f" * 64, 640, 360, 2.5, 1)
    await call(assets.insert, asset)
    for n in range(8):
        await call(generations.insert, made(n, client_id=f"c{1 + n % 2}", campaign_id=f"k{1 + n % 2}"))
    waiting = {"image_id": id_of(0), "asset_id": "a1"}
    for n in (8, 9):
        await call(generations.insert, made(n, kind="video", status="waiting", source=waiting, batch_id="b"))
        await call(dependencies.insert, id_of(n), id_of(0))
        await call(dependencies.insert, id_of(n), id_of(0))


async def look(call: Watched) -> None:
    for finder, id in ((clients.get, "c1"), (campaigns.get, "k1"), (assets.get, "a1"), (keys.get, "key")):
        await call(finder, id)
        await call(finder, "nothing")
    await call(clients.first_named, "c1")
    await call(campaigns.first_named, "c1", "Frühling")
    await call(campaigns.first_named, "c2", "Sommer")
    await call(keys.by_prefix, "prefix")
    await call(keys.set_fingerprint, "key", 65_535)
    await call(keys.set_fingerprint, "key", 1)
    await call(keys.page, None, 10)
    for client in (None, "c1"):
        for page in (clients.page, campaigns.page, assets.page):
            await call(page, client, None, 10)
            await call(page, client, "c2", 10)
    await call(generations.get, id_of(1))
    await call(generations.nonce_of, "p", id_of(1))
    await call(generations.nonce_of, "another", id_of(1))
    for wanted in ({"id": "a1"}, {"id": "a2"}, {"campaign_id": "k1"}, {"campaign_id": "k2"}):
        await call(sources.are_needed, **wanted)
    for offered in (("p",), ("p", "q"), ()):
        await call(submits.hopeless, 1 << 50, offered, 1, 10)
    await call(submits.unsent, 20)
    await call(dependencies.waiting_for, id_of(0), 1)
    await call(dependencies.waiting_for, id_of(0), 9)
    await call(dependencies.any_waiting, id_of(0))
    await call(dependencies.any_waiting, id_of(1))
    await call(dependencies.ended, 9)
    await call(holdings.get, "c1")
    await call(holdings.get, "nothing")
    await call(clients.has_unfinished, "c1")
    await call(clients.has_unfinished, "c2", "k2")
    await call(clients.has_unfinished, "c2", "k1")
    for client in ("c1", "c2", "nobody"):
        await call(balances.unfinished, client)


async def list_all(call: Watched) -> None:
    every = [
        Filters(),
        Filters(kind="video"),
        Filters(client_id="c1", kind="image"),
        Filters(campaign_id="k1", kind="image", client_id="c1"),
        Filters(statuses=("queued", "waiting"), provider="p", model="m", batch_id="b"),
        Filters(created_after=999_999, created_before=1_000_001),
        Filters(q="GRüßE"),
        Filters(q="Übergrüße 3"),
        Filters(q="100%_\\"),
    ]
    for filters in every:
        await call(lists.page, filters, None, 3)
        await call(lists.page, filters, id_of(4), 3)
        await call(lists.page_up, filters, None, 3)
        await call(lists.page_up, filters, id_of(4), 3)


async def work(call: Watched) -> None:
    lease = {"owner": "w", "now": 10, "until": 20}
    await call(queue.any_queued, "p", ("image", "video"), 1)
    await call(queue.any_queued, "p", ("image",), 10)
    await call(queue.any_queued, "p", ("video",), 10)
    await call(queue.claim_queued, "nobody", "nobody", kinds=("image", "video"), limit=4, **lease)
    await call(queue.claim_queued, "p", "p:second", kinds=("image", "video"), limit=4, **lease)
    await call(queue.claim_queued, "p", "p:second", kinds=("image",), limit=1, **lease)
    await call(claims.count_in_flight, "p", "p:second")
    await call(claims.count_in_flight, "p", "p:second", 11)
    await call(generations.begin, [], account="p:second", owner="w", now=10)
    await call(generations.begin, [id_of(0), id_of(7)], account="p:second", owner="w", now=10)
    await call(generations.nonce_of, "p:second", id_of(0))
    await call(leases.extend, id_of(0), "w", 30)
    await call(submits.any_submitting, "m", "Übergrüße 0", {"seed": 1})
    await call(submits.any_submitting, "m", None, {})
    theirs = {"provider_id": "x0", "submitted_at": 11, "progress": 0.25}
    await call(generations.move, id_of(0), "processing", now=11, owner="w", **theirs)
    await call(generations.move, id_of(0), "processing", now=11, owner="w", **theirs)
    await call(generations.note, id_of(0), status="processing", progress=0.5, polls=1)
    await call(generations.note, id_of(0), status="queued", polls=9)
    await call(submits.known_provider_id, "p", "x0")
    await call(submits.known_provider_id, "p:second", "x0")
    await call(claims.any_due, "processing", "p:second", 12)
    await call(claims.any_due, "processing", "p:second", 1)
    await call(claims.accounts, "processing")
    await call(claims.claim_due, "processing", "p:second", limit=5, **{**lease, "now": 12})
    await call(generations.move, id_of(0), "storing", now=13, outputs=["http://x/ü"], outputs_expire_at=99)
    file = {"file_name": "f.png", "content_type": "image/png", "bytes": 5, "sha256": "s", "width": 1, "height": 2}
    other = {
        "index": 1,
        "file_name": "ö-1.png",
        "bytes": 3,
        "sha256": "b",
        "content_type": "image/png",
        "state": "read",
    }
    said = {"media_state": "unread", "media_why": "ßecause", "more_files": [other]}
    await call(generations.move, id_of(0), "completed", now=14, **file, duration_s=None, progress=1.0, **said)
    why = Failure("timed_out", "zu spät", True)
    await call(generations.move, id_of(2), "failed", now=14, failure=why, possibly_charged=True)
    lost = await generations.get(call.tx, id_of(2))
    for micros in (7, 7, None):  # the second time it is no longer the bill that was read
        bill = {"possibly_charged": micros is None, "cost_actual_micros": micros}
        await call(bills.correct, lost, 15, bill, provider_id="x2", began_at=3)
    await call(balances.correct, lost, replace(lost, possibly_charged=False), 15)
    await call(usage.correct, lost, replace(lost, possibly_charged=False))
    await call(generations.begin, [id_of(4)], account="p", owner="w", now=14)
    await call(generations.move, id_of(4), "unclear", now=14, held_at=14)
    await call(claims.count_in_flight, "p", "p:second")
    await call(generations.move, id_of(8), "canceled", now=14)
    await call(leases.release_all, 15)
    await call(leases.pull_in, 10**15, 1)
    await call(events.announce, (await generations.get(call.tx, id_of(2))), 16)
    await call(events.warn, "c1", None, {"budget_usd": 1.5}, 17)
    await call(events.last_id)
    for topic in (
        feed.Topic(),
        feed.Topic("client", "c1"),
        feed.Topic("campaign", "k1"),
        feed.Topic("generation", id_of(2)),
    ):
        await call(feed.last_id, topic)
    await call(feed.page, feed.Topic(), "", 100)
    for topic in (Topic(), Topic("client", "c1"), Topic("campaign", "k1"), Topic("generation", id_of(2))):
        await call(feed.page, topic, "", 100)
    await call(feed.named, [id_of(2), id_of(3), "nothing"])
    await call(feed.named, [])
    await call(feed.standings, 10)
    await call(dependencies.settle, id_of(9), id_of(0))
    for n in (0, 0, 2):
        await call(dependencies.note_end, id_of(n))
    await call(dependencies.ended, 9)
    await call(dependencies.forget_end, id_of(2))
    await call(dependencies.forget, id_of(9))
    await call(generations.release, id_of(0), 20)
    await call(dependencies.ended, 9)


async def keep_going(call: Watched) -> None:
    word = ProviderWebhook("d1", "p", id_of(1), "w1", '{"ü": 1}'.encode(), 5)
    for delivery in (word, replace(word, id="d2"), replace(word, id="d3", webhook_id="w2")):
        await call(provider_webhooks.insert, delivery)
    await call(provider_webhooks.held, id_of(1))
    await call(provider_webhooks.held, id_of(2))
    await call(holdings.get, "c2")
    await call(holdings.add_heard, id_of(0), 7)
    await call(holdings.give_back, [("c1", Held(text_bytes=7, heard=1)), ("c1", Held()), ("c0", Held(told=1))])
    await call(holdings.add, "c0", Held(told=1))
    await call(provider_webhooks.count_attempt, "d1")
    await call(provider_webhooks.count_attempts, "d2")
    await call(provider_webhooks.unhandled, 10)
    await call(provider_webhooks.mark_handled, "d1", 6, "late")
    await call(provider_webhooks.mark_handled, "d1", 7, "late")
    for until in (50, 40, 60):
        await call(operations.pause, "p", until, f"until {until}")
    await call(operations.paused, "p", 55)
    await call(operations.pauses, 55)
    for now in (5, 6):
        await call(operations.beat, "w", "all", now)
    await call(operations.last_beat)
    await call(operations.oldest_queued)
    await call(operations.oldest_begun)
    await call(operations.counts)
    await call(operations.possibly_charged)
    await call(operations.set_aside)
    await call(operations.retire, "w")
    await call(operations.prune_workers, 100)
    for at in (30, 40, 40):
        await call(restores.last)
        await call(restores.insert, at - 9, at)
    await call(restores.last)
    await call(operations.throw_away, ["a.png", "a.png", "b.png"], 5)
    await call(operations.rubbish, 10)
    await call(operations.forget_rubbish, ["a.png"])
    await call(operations.without_row, [id_of(0) + ".png", id_of(1) + ".png", "a1.mp4"])
    await call(idempotency_keys.put, "s", "k", "h", 1, running_until=5)
    await call(idempotency_keys.get, "s", "k")
    await call(idempotency_keys.forget, "s", "k")
    await call(idempotency_keys.put, "s", "k", "h", 1, status=202, body="{}", location="/x")
    await call(idempotency_keys.put, "s", "k", "h", 1, status=202, body="[]")
    await call(idempotency_keys.renew, "s", "k", 2, "[]", "{}")
    await call(idempotency_keys.get, "s", "k")
    await call(idempotency_keys.renew, "s", "k", 1, "[]", "{}")
    await call(idempotency_keys.renew, "s", "k", 1, "{}", "[]")
    await call(idempotency_keys.prune, 2, 3, 10)
    await call(idempotency_keys.put, "client:c1", "k", "h", 1, running_until=5)
    await call(idempotency_keys.prune, 2, 3, 10)
    for part in (provider_webhooks, events):
        await call(part.prune, 2_000_000, 1)
        await call(part.prune, 1, 100)


async def count_money(call: Watched) -> None:
    await call(clients.set_budget, "c1", 500_000)
    await call(campaigns.set_budget, "k1", 1_000_000)
    for owner in (("c1", None), ("c1", "k1"), ("c2", "k2")):
        await call(balances.begin_anew, *owner, 20)
    await call(balances.admit, "c1", "k1", 1)
    for micros, wanted in ((400_000, 30), (200_000, 31)):
        await call(balances.admit, "c1", "k1", micros)
        await call(generations.insert, made(wanted, cost_estimated_micros=micros, created_at=86_400_000 * 20_000))
    await call(clients.get, "c1")
    await call(campaigns.get, "k1")
    await call(balances.release, made(31, cost_estimated_micros=200_000))
    await call(balances.reserve, made(32, cost_estimated_micros=1))
    ended = {"status": "failed", "cost_estimated_micros": 200_000, "possibly_charged": True}
    film = {"kind": "video", "duration_s": 2.0625, "bytes": 7, "status": "completed", "cost_actual_micros": 300_000}
    await call(balances.settle, made(30, **ended), 21)
    for row in (made(30, **ended), made(31, **film, key_id="key"), made(32, **film, key_id="admin")):
        await call(usage.add, row)
        await call(usage.add, row)
        await call(usage.mark_deleted, row)
    days = usage.Scope(0, 30_000)
    for group in usage.GROUPS:
        for scope in (days, replace(days, client_id="c1"), replace(days, first=1), replace(days, campaign_id="k2")):
            await call(usage.totals, group, scope, 100)
        await call(usage.totals, group, days, 1)
    await call(feed.page, feed.Topic(), "", 100)
    await call(clients.set_budget, "c1", None)
    await call(campaigns.set_budget, "k1", None)


async def subscribe(call: Watched) -> None:
    listener = Endpoint(id_of(20), "c1", "http://h/ü", (), "whsec_1", None, None, None, None, None, 1)
    await call(webhook_endpoints.insert, listener)
    await call(webhook_endpoints.insert, replace(listener, id=id_of(21), events=("generation.failed",)))
    await call(webhook_endpoints.insert, replace(listener, id=id_of(22), client_id="c2"))
    await call(webhook_endpoints.get, id_of(20))
    await call(webhook_endpoints.get, "nothing")
    for client in (None, "c1", "c3"):
        await call(webhook_endpoints.page, client, None, 10)
        await call(webhook_endpoints.count, client or "c2")
        await call(webhook_endpoints.listening, client or "c2")
    await call(webhook_endpoints.change, id_of(21), "http://other", ())
    await call(webhook_endpoints.rotate, id_of(21), "whsec_2", "whsec_1", 99)
    for reason in ("first", "second"):
        await call(webhook_endpoints.disable, id_of(21), 5, reason)
    await call(webhook_endpoints.count_disabled)
    await call(webhook_endpoints.get, id_of(21))
    await call(webhook_endpoints.enable, id_of(21))
    for now in (5, 6):
        await call(webhook_endpoints.note_failure, id_of(21), now)
    await call(webhook_endpoints.note_success, id_of(21))
    await call(webhook_endpoints.get, id_of(21))
    for fresh in ("whsec_3", "whsec_4"):
        await call(webhook_secrets.get, "c1")
        await call(webhook_secrets.keep, "c1", fresh, 7)
        await call(webhook_secrets.mark_shown, "c1", 8)
    await call(webhook_secrets.rotate, "c1", "whsec_5", "whsec_3", 99, 9)
    await call(webhook_secrets.get, "c1")
    await call(webhook_secrets.keep, "nobody", "whsec_6", 9)


async def remember(call: Watched) -> None:
    who = Caller("key", "c1", name="Schlüssel", prefix="sk_prefix", address="10.0.0.1", request_id="r")
    for now, (caller, action) in enumerate([(who, "key.created"), (SYSTEM, "key.created"), (who, "restore")]):
        at, old, new = 1_000_000 + now, {"name": "ä", "same": 1}, {"name": "ö", "same": 1}
        await call(audit.record, caller, action, Subject("key", f"o{now}", "c1"), at, old=old, new=new)
        await call(audit.record, caller, action, Subject("key", f"o{now}", "c1"), at, old=old, new=old)
    for wanted in (
        audit_lists.AuditFilter(),
        audit_lists.AuditFilter("key.created"),
        audit_lists.AuditFilter(client_id="c1", key_id="key", action="restore"),
        audit_lists.AuditFilter(object_id="o1", created_after=1_000_001, created_before=1_000_002),
        audit_lists.AuditFilter(created_after=1_000_003),
    ):
        await call(audit_lists.page, wanted, None, 2)
        await call(audit_lists.page, wanted, id_of(0), 2)
    await call(keys.admins, 1)
    await call(keys.admins, 9)
    await call(audit.prune, 1_000_001, 5)
    await call(audit_lists.page, audit_lists.AuditFilter(), None, 9)


async def tell(call: Watched) -> None:
    event = Event(id_of(30), id_of(1), "c1", "k1", "generation.failed", None, 10)
    await call(webhook_deliveries.owe, event, "HTTP://h:81/path")
    warning = replace(event, id=id_of(31), generation_id=None, type="budget.warning", subject={"ü": 1.5})
    made = webhook_deliveries.first(warning, id_of(22), "http://h", id_of(22))
    for number in range(3):
        await call(webhook_deliveries.insert, replace(made, id=id_of(40 + number), client_id="c2", due_at=10 + number))
    await call(webhook_lists.get, id_of(40))
    await call(webhook_deliveries.count_pending)
    everybody = {target.name: target for target in await call(webhook_claims.due_targets, 11)}
    targets = [everybody[id_of(22)], Target("nobody", "c9", 1, False)]
    await call(webhook_claims.claim_fairly, targets, owner="w", now=11, until=50, limit=2)
    claimed = (await call(webhook_claims.claim_due, id_of(22), owner="w", now=12, until=60, limit=5))[0]
    await call(webhook_claims.claim_due, id_of(22), owner="w", now=12, until=60, limit=5)
    await call(webhook_deliveries.postpone, claimed, url="http://new", due_at=70)
    await call(webhook_deliveries.postpone, claimed, url="http://new", due_at=70)
    await call(webhook_claims.pull_in, 65, 12)
    claimed = (await call(webhook_claims.claim_due, id_of(22), owner="w", now=12, until=60, limit=5))[0]
    for _ in range(2):
        await call(webhook_deliveries.finish, claimed, "delivered", url="http://new", now=13)
    for number, answer in enumerate(("grün", None, "ü" * 3000, "x" * 4000, "y")):
        await call(webhook_attempts.keep, Attempt(claimed.id, number, 12, 3, 200 + number, answer, None))
        await call(webhook_attempts.of, [claimed.id], 5000)
        await call(holdings.get, "c2")
    for delivery in range(5):
        await call(webhook_deliveries.insert, replace(made, id=id_of(60 + delivery), client_id="c2", due_at=99))
        await call(webhook_attempts.keep, Attempt(id_of(60 + delivery), 1, 12, 3, 500, "z" * 2001, None))
    await call(webhook_attempts.of, [id_of(60), id_of(61)], 5000)
    await call(holdings.get, "c2")
    await call(webhook_deliveries.held, id_of(1))
    await call(webhook_deliveries.held, id_of(2))
    await call(webhook_attempts.count, claimed.id)
    for since in (12, 13):
        await call(webhook_attempts.was_tried, id_of(22), since, id_of(0))
    await call(webhook_attempts.of, [claimed.id, id_of(41)], 3)
    await call(webhook_attempts.of, [], 3)
    await call(webhook_claims.release_leases, 14)
    for wanted in (
        DeliveryFilter(),
        DeliveryFilter("c2", status="pending"),
        DeliveryFilter("c2", id_of(22), None, None, "budget.warning"),
    ):
        await call(webhook_lists.page, wanted, None, 2)
    await call(webhook_lists.page, DeliveryFilter("c1", None, id_of(1)), None, 9)
    await call(webhook_deliveries.fail_pending, id_of(22), 15, 1)
    await call(webhook_retention.prune, 2_000_000, 1)
    for _ in range(2):
        await call(webhook_retention.forget_of_generation, id_of(1), 1)
    await call(holdings.get, "c2")
    await call(webhook_endpoints.mark_deleted, id_of(22), 16)
    await call(webhook_lists.get, id_of(41))
    await call(webhook_retention.forget_of_deleted, 10)
    await call(webhook_endpoints.forget_deleted, 10)
    await call(webhook_endpoints.mark_deleted_of, "c1", 17)


async def take_down(call: Watched) -> None:
    await call(keys.revoke, "key", 9)
    await call(keys.revoke, "key", 9)
    await call(clients.rename, "c1", "new")
    await call(campaigns.rename, "k1", "new")
    await call(campaigns.mark_deleted, "k2", 9)
    await call(campaigns.deleted_with_rows, 100)
    await call(clients.mark_deleted, "c1", 9)
    await call(campaigns.mark_deleted_of_clients, 10, 5)
    await call(assets.of_deleted_clients, 10)
    await call(idempotency_keys.forget_of_deleted, 10)
    await call(assets.page, None, None, 10)
    await call(generations.delete, id_of(0))
    await call(assets.delete, "a1")
    await call(generations.get, id_of(9))
    await call(lists.page, Filters(), None, 20)
    await call(sources.release, id_of(9))
    await call(sources.insert, id_of(9), ["a1"])
    for id in map(id_of, range(10)):
        await call(generations.delete, id)
    for _ in range(2):
        await call(events.forget_of_deleted, 3)
    await call(events.forget_of_deleted, 100)
    await call(campaigns.forget_deleted, 1)
    await call(clients.forget_deleted, 10)
    await call(campaigns.forget_deleted, 10)
    await call(events.forget_of_deleted, 100)
    await call(holdings.get, "c1")
    await call(holdings.get, "c2")
    await call(clients.forget_deleted, 10)
    await call(holdings.get, "c1")
    await call(holdings.forget, "c2")


async def story(tx: Tx) -> Watched:
    ids._last = 0  # new ids are larger than every one before: as if nobody had told this story yet
    call = Watched(tx)
    parts = (
        set_up,
        look,
        list_all,
        subscribe,
        remember,
        work,
        keep_going,
        tell,
        list_all,
        look,
        count_money,
        take_down,
    )
    for part in parts:
        await part(call)
    return call


def settled(answers: list[Any]) -> str:
    """Answers without the order that a claim leaves open, 1.0 in a RETURNING of SQLite that means 1, random ids."""
    lines = (f"{name} {sorted(map(_plain, a)) if isinstance(a, list) else _plain(a)}" for name, a in answers)
    return "\n".join(lines)


def _plain(answer: Any) -> str:
    text = re.sub(r"\b(\d+)\.0\b", r"\1", repr(answer))
    return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-(?!8000-0{9})[0-9a-f]{4}-[0-9a-f]{12}", "a random id", text)


def functions() -> set[str]:
    """Every public function of backend/db that takes a transaction."""
    found = set()
    for module in pkgutil.iter_modules(backend.db.__path__):
        loaded = importlib.import_module(f"backend.db.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.iscoroutinefunction):
            if not name.startswith("_") and function.__module__ == loaded.__name__:
                found.add(f"{loaded.__name__}.{name}")
    return found


async def on_sqlite(path: Path) -> Watched:
    migrate(path)
    db = await SqliteDb.open(path)
    try:
        return await db.write(story)
    finally:
        await db.close()


async def test_every_statement_answers_the_same_on_sqlite_and_postgresql(tmp_path: Path) -> None:
    here = await on_sqlite(tmp_path / "test.db")
    async with postgres() as connection:
        await connection.execute(schema_file().read_text("utf-8"))
        async with connection.transaction():
            there = await story(PostgresTx(connection))
    assert settled(here.answers) == settled(there.answers)


async def test_the_story_calls_every_function_that_talks_to_the_database(tmp_path: Path) -> None:
    assert functions() - (await on_sqlite(tmp_path / "test.db")).called == set()


async def test_a_row_that_makes_no_sense_is_refused_by_both(tmp_path: Path) -> None:
    nonsense = [
        {"status": "lost"},
        {"kind": "song"},
        {"status": "completed", "finished_at": 1},
        {"status": "failed", "finished_at": 1},
        {"status": "failed", "failure": Failure("timed_out", "x")},
        {"finished_at": 1},
        {"status": "processing", "claimed_at": 1},
        {"status": "submitting"},
        {"client_id": "nobody"},
    ]
    migrate(tmp_path / "test.db")
    db = await SqliteDb.open(tmp_path / "test.db")
    async with postgres() as connection:
        await connection.execute(schema_file().read_text("utf-8"))
        for wrong in nonsense:
            with pytest.raises(sqlite3.IntegrityError):
                await db.write(lambda tx, wrong=wrong: generations.insert(tx, made(1, **wrong)))
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await generations.insert(PostgresTx(connection), made(1, **wrong))
    await db.close()
