"""What workers and sweepers ask all the time is found by an index, however many finished rows there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backend.core.webhooks import Attempt
from backend.db import (
    assets,
    audit,
    audit_lists,
    balances,
    campaigns,
    claims,
    clients,
    dependencies,
    events,
    feed,
    generations,
    holdings,
    idempotency_keys,
    leases,
    operations,
    provider_webhooks,
    queue,
    sources,
    submits,
    usage,
    webhook_attempts,
    webhook_claims,
    webhook_deliveries,
    webhook_endpoints,
    webhook_lists,
    webhook_retention,
)
from backend.db.connection import Tx
from backend.db.feed import Topic
from backend.db.migrate import migrate
from backend.db.webhook_lists import DeliveryFilter

CLAIM: dict[str, Any] = {"owner": "w", "now": 1, "until": 2, "limit": 5}
ASKED: dict[str, Callable[[Tx], Awaitable[Any]]] = {
    "claim_due": lambda tx: claims.claim_due(tx, "storing", "replicate", **CLAIM),
    "claim_queued": lambda tx: queue.claim_queued(tx, "replicate", "replicate", kinds=("image", "video"), **CLAIM),
    "any_due": lambda tx: claims.any_due(tx, "storing", "replicate", 1),
    "accounts": lambda tx: claims.accounts(tx, "storing"),
    "any_queued": lambda tx: queue.any_queued(tx, "replicate", ("image",), 1),
    "count_in_flight": lambda tx: claims.count_in_flight(tx, "replicate", "replicate", 1),
    "release_leases": lambda tx: leases.release_all(tx, 1),
    "pull_in": lambda tx: leases.pull_in(tx, 2, 1),
    "any_submitting": lambda tx: submits.any_submitting(tx, "m", "p", {}),
    "known_provider_id": lambda tx: submits.known_provider_id(tx, "replicate", "p"),
    "hopeless": lambda tx: submits.hopeless(tx, 1, ("replicate",), 1, 10),
    "unsent": lambda tx: submits.unsent(tx, 10),
    "are_needed": lambda tx: sources.are_needed(tx, id="x"),
    "are_needed of a campaign": lambda tx: sources.are_needed(tx, campaign_id="x"),
    "oldest_queued": operations.oldest_queued,
    "oldest_begun": operations.oldest_begun,
    "counts": operations.counts,
    "possibly_charged": operations.possibly_charged,
    "set_aside": operations.set_aside,
    "unfinished of a campaign": lambda tx: clients.has_unfinished(tx, "x", "y"),
    "unfinished of a client": lambda tx: clients.has_unfinished(tx, "x"),
    "unfinished": lambda tx: balances.unfinished(tx, "x"),
    "a campaign by its name": lambda tx: campaigns.first_named(tx, "x", "y"),
    "deleted_with_rows": lambda tx: campaigns.deleted_with_rows(tx, 10),
    "of_deleted_clients": lambda tx: assets.of_deleted_clients(tx, 10),
    "forget_deleted_campaigns": lambda tx: campaigns.forget_deleted(tx, 10),
    "forget_deleted": lambda tx: clients.forget_deleted(tx, 10),
    "last event of a client": lambda tx: feed.last_id(tx, feed.Topic("client", "x")),
    "last event of a campaign": lambda tx: feed.last_id(tx, feed.Topic("campaign", "x")),
    "last event of all": lambda tx: feed.last_id(tx, feed.Topic()),
    "events of all": lambda tx: feed.page(tx, Topic(), "x", 10),
    "events of a client": lambda tx: feed.page(tx, Topic("client", "x"), "x", 10),
    "events of a campaign": lambda tx: feed.page(tx, Topic("campaign", "x"), "x", 10),
    "events of a generation": lambda tx: feed.page(tx, Topic("generation", "x"), "x", 10),
    "named": lambda tx: feed.named(tx, ["x", "y"]),
    "standings": lambda tx: feed.standings(tx, 10),
    "prune events": lambda tx: events.prune(tx, 1, 10),
    "prune deliveries": lambda tx: provider_webhooks.prune(tx, 1, 10),
    "prune answers": lambda tx: idempotency_keys.prune(tx, 1, 1, 10),
    "forget_of_deleted": lambda tx: idempotency_keys.forget_of_deleted(tx, 10),
    "rubbish": lambda tx: operations.rubbish(tx, 10),
    "without_row": lambda tx: operations.without_row(tx, ["x"]),
    "delete a generation": lambda tx: generations.delete(tx, "x"),
    "delete an asset": lambda tx: assets.delete(tx, "x"),
    "due_targets": lambda tx: webhook_claims.due_targets(tx, 1),
    "claim_fairly": lambda tx: webhook_claims.claim_fairly(tx, [webhook_claims.Target("e", "c", 1, False)], **CLAIM),
    "release webhook leases": lambda tx: webhook_claims.release_leases(tx, 1),
    "pull in webhooks": lambda tx: webhook_claims.pull_in(tx, 2, 1),
    "listening": lambda tx: webhook_endpoints.listening(tx, "x"),
    "fail_pending": lambda tx: webhook_deliveries.fail_pending(tx, "x", 1, 10),
    "count_pending": webhook_deliveries.count_pending,
    "count_attempts": lambda tx: webhook_attempts.count(tx, "x"),
    "attempts_of": lambda tx: webhook_attempts.of(tx, ["x", "y"], 10),
    "webhooks of a client": lambda tx: webhook_lists.page(tx, DeliveryFilter(client_id="x", status="failed"), None, 10),
    "webhooks of an endpoint": lambda tx: webhook_lists.page(tx, DeliveryFilter("x", endpoint_id="y"), "z", 10),
    "webhooks of a generation": lambda tx: webhook_lists.page(tx, DeliveryFilter("x", generation_id="y"), "z", 10),
    "was_tried": lambda tx: webhook_attempts.was_tried(tx, "x", 1, "y"),
    "held of a client": lambda tx: holdings.get(tx, "x"),
    "more is held": lambda tx: holdings.add(tx, "x", holdings.Held(assets=1)),
    "more is heard": lambda tx: holdings.add_heard(tx, "x", 1),
    "held of a generation": lambda tx: provider_webhooks.held(tx, "x"),
    "webhooks held of a generation": lambda tx: webhook_deliveries.held(tx, "x"),
    "forget webhooks of a generation": lambda tx: webhook_retention.forget_of_generation(tx, "x", 10),
    "keep an attempt": lambda tx: webhook_attempts.keep(tx, Attempt("x", 1, 1, 1, 200, "y" * 3000, None)),
    "campaigns of deleted clients": lambda tx: campaigns.mark_deleted_of_clients(tx, 1, 10),
    "events of deleted": lambda tx: events.forget_of_deleted(tx, 10),
    "who waits": lambda tx: dependencies.waiting_for(tx, "x", 10),
    "prune webhooks": lambda tx: webhook_retention.prune(tx, 1, 10),
    "forget webhooks of deleted": lambda tx: webhook_retention.forget_of_deleted(tx, 10),
    "forget endpoints": lambda tx: webhook_endpoints.forget_deleted(tx, 10),
    "who did it, of all": lambda tx: audit_lists.page(tx, audit_lists.AuditFilter(), None, 10),
    "who did it, by time": lambda tx: audit_lists.page(
        tx, audit_lists.AuditFilter(created_after=1, created_before=2), "x", 10
    ),
    "who did this": lambda tx: audit_lists.page(tx, audit_lists.AuditFilter(action="key.created"), None, 10),
    "who did it to a client": lambda tx: audit_lists.page(tx, audit_lists.AuditFilter(client_id="x"), None, 10),
    "what a key did": lambda tx: audit_lists.page(tx, audit_lists.AuditFilter(key_id="x"), None, 10),
    "who did it to a thing": lambda tx: audit_lists.page(tx, audit_lists.AuditFilter(object_id="x"), None, 10),
    "who did this to a client": lambda tx: audit_lists.page(
        tx, audit_lists.AuditFilter("key.created", "x", "y"), "z", 10
    ),
    "prune the audit log": lambda tx: audit.prune(tx, 1, 10),
    "a client's page": lambda tx: clients.page(tx, None, "x", 10),
    "a client's campaigns": lambda tx: campaigns.page(tx, "x", "x", 10),
    "admit to a budget": lambda tx: balances.admit(tx, "x", "y", 1),
    "a budget begins anew": lambda tx: balances.begin_anew(tx, "x", "y", 1),
    "usage of all by day": lambda tx: usage.totals(tx, "day", usage.Scope(1, 2), 10),
    "usage of a client by key": lambda tx: usage.totals(tx, "key", usage.Scope(1, 2, "x"), 10),
    "usage of a campaign, for an admin": lambda tx: usage.totals(tx, "model", usage.Scope(1, 2, None, "y"), 10),
    "usage of a campaign": lambda tx: usage.totals(tx, "campaign", usage.Scope(1, 2, "x", "y"), 10),
}
PARTIAL = (
    "generations_due",
    "generations_storing",
    "generations_queued",
    "generations_waiting",
    "generations_in_flight",
    "generations_leased",
)
PARTIAL += ("generations_possibly_charged", "generations_unfinished", "campaigns_deleted", "clients_deleted")
PARTIAL += ("generations_set_aside",)
PARTIAL += ("webhook_deliveries_due", "webhook_deliveries_leased", "webhook_endpoints_deleted")
PARTIAL += ("sqlite_autoindex_trash",)  # everything in it is to be removed
GROWING = ("generations", "campaigns", "clients", "assets", "events", "deliveries", "idempotency", "sources", "trash")
GROWING += ("webhook_attempts", "webhook_deliveries", "holdings", "dependencies")
GROWING += ("usage_days", "balances", "audit")


class Explaining:
    """A transaction that notes how SQLite would find each statement's rows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plans: list[str] = []

    async def one(self, sql: str, **params: Any) -> Any:
        rows = await self.all(sql, **params)
        return rows[0] if rows else None

    async def all(self, sql: str, **params: Any) -> list[Any]:
        self.plans += [row[3] for row in self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", params)]
        return self._connection.execute(sql, params).fetchall()

    async def run(self, sql: str, **params: Any) -> int:
        await self.all(sql, **params)
        return 0


@pytest.mark.parametrize("name", ASKED)
async def test_no_question_walks_through_what_is_finished(tmp_path: Path, name: str) -> None:
    migrate(tmp_path / "plans.db")
    with closing(sqlite3.connect(tmp_path / "plans.db")) as connection:
        connection.row_factory = sqlite3.Row
        tx = Explaining(connection)
        await ASKED[name](tx)
    walks = [plan for plan in tx.plans if plan.startswith("SCAN") and not plan.startswith("SCAN found")]
    tables = [plan for plan in walks if any(table in plan for table in GROWING)]
    assert [plan for plan in tables if not any(index in plan for index in PARTIAL)] == [], tx.plans
    assert not any(
        "generations_by_c" in plan or "sqlite_autoindex_generations" in plan for plan in tx.plans if "<" in plan
    )
    if name.startswith(("unfinished", "usage")):
        assert not any("generations_by_c" in plan for plan in tx.plans), tx.plans


@pytest.mark.parametrize("status", ["submitting", "unclear", "processing", "storing"])
async def test_what_is_due_is_read_in_the_order_it_is_taken_and_not_sorted(tmp_path: Path, status: str) -> None:
    migrate(tmp_path / "plans.db")
    with closing(sqlite3.connect(tmp_path / "plans.db")) as connection:
        connection.row_factory = sqlite3.Row
        tx = Explaining(connection)
        await claims.claim_due(tx, status, "replicate", **CLAIM)
    assert [plan for plan in tx.plans if "TEMP B-TREE" in plan] == [], tx.plans
    index = "generations_storing" if status == "storing" else "generations_due"
    assert [plan for plan in tx.plans if index in plan], tx.plans


async def test_what_is_counted_and_asked_of_a_queue_costs_no_more_when_it_is_long(tmp_path: Path) -> None:
    """Not walked: fifty thousand queued rows, of which a few are leased."""
    migrate(tmp_path / "plans.db")
    with closing(sqlite3.connect(tmp_path / "plans.db")) as connection:
        connection.row_factory = sqlite3.Row
        tx = Explaining(connection)
        await claims.count_in_flight(tx, "replicate", "replicate", 1)
        await clients.has_unfinished(tx, "x", "y")
    found = [plan for plan in tx.plans if "generations" in plan]
    assert [plan.split(" (")[0].split("INDEX ")[1] for plan in found] == [
        "generations_in_flight",
        "generations_leased",
        "generations_unfinished",
    ], found
