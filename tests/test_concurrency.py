"""Many at once on both databases: what holds one after the other holds side by side, and no caller sees how."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from postgresql import Isolation, postgres_db

from backend.app import open_context
from backend.config import Settings
from backend.context import Context
from backend.core.errors import BudgetExceeded, Conflict, TooManyRequests
from backend.core.generation import PROCESSING, SUBMITTING
from backend.core.outcomes import ProviderWebhook
from backend.core.people import Caller, Campaign, Client
from backend.core.requests import ImageRequest
from backend.db import campaigns, clients, generations, provider_webhooks
from backend.db.connection import Tx
from backend.manage import clients as people
from backend.manage import idempotency, storage_quota
from backend.manage.idempotency import Idempotency, Reply
from backend.steps import queue, receive, request, watch

ENGINES: tuple[Isolation | None, ...] = (None, "one lock", "serializable")
WHO = Caller("key", "c1")
IMAGE_MICROS = 39_000


def name_of(engine: Isolation | None) -> str:
    return f"postgresql, {engine}" if engine else "sqlite"


@pytest.fixture(params=ENGINES, ids=name_of)
async def ctx(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Context]:
    """A client with three campaigns, on each database; no worker runs and no provider is asked."""
    given: dict[str, Any] = {"database_url": f"sqlite:///{tmp_path}/test.db", "storage_url": f"file:{tmp_path}/media"}
    given |= {"REPLICATE_API_KEY": "r8_nobody", "replicate_base_url": "http://127.0.0.1:9", "min_free_mb": 0}
    given |= {"max_unfinished_per_client": 60, "max_in_flight": 10, "redis_url": None}
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_context(Settings(_env_file=None, **given)))
        if request.param:
            opened.db = await stack.enter_async_context(postgres_db(request.param))
        await opened.db.write(set_up)
        yield opened


async def set_up(tx: Tx) -> None:
    await clients.insert(tx, Client("c1", "c", 1))
    for number in range(3):
        await campaigns.insert(tx, Campaign(f"k{number}", "c1", "k", 1))


async def accept(tx: Tx, ctx: Context, campaign_id: str = "k0") -> Reply:
    rows = await request.accept(tx, ctx, WHO, "image", ImageRequest(prompt="a fox", campaign_id=campaign_id))
    return Reply(202, {"id": rows[0].id})


async def at_once(count: int, work: Callable[[int], Awaitable[Any]]) -> Counter[Any]:
    """What came of so many at once: answers and the kinds of refusals."""
    ended = await asyncio.gather(*(work(number) for number in range(count)), return_exceptions=True)
    return Counter(type(one).__name__ if isinstance(one, BaseException) else one for one in ended)


async def number(ctx: Context, sql: str) -> int:
    row = await ctx.db.read(lambda tx: tx.one(f"SELECT {sql} AS n"))
    return int(row["n"])


@pytest.mark.parametrize("name", ["work in one transaction", "work that takes longer"])
async def test_requests_with_one_key_make_one_generation(ctx: Context, name: str) -> None:
    repeat = Idempotency("client:c1", "the key", "hash")

    async def at_one_go(_: int) -> str:
        return str((await idempotency.once(ctx, repeat, lambda tx: accept(tx, ctx))).body["id"])

    async def in_two(_: int) -> str:
        if kept := await idempotency.begin(ctx, repeat):
            return str(kept.body["id"])
        return str((await idempotency.finish(ctx, repeat, lambda tx: accept(tx, ctx))).body["id"])

    found = await at_once(8, at_one_go if name == "work in one transaction" else in_two)
    assert len(found - Counter({Conflict.__name__: 8})) == 1, found
    assert await number(ctx, "(SELECT COUNT(*) FROM generations)") == 1
    assert await number(ctx, "(SELECT answers FROM holdings WHERE client_id = 'c1')") == 1


@pytest.mark.parametrize("ctx", ENGINES[:2], ids=name_of, indirect=True)
async def test_batches_of_webhooks_all_end_and_move_each_row_once(ctx: Context) -> None:
    """Sixty batches of four, each row in four of them and in another order in each."""
    rows = 60
    ids = [str((await ctx.db.write(lambda tx, n=n: accept(tx, ctx, f"k{n % 3}"))).body["id"]) for n in range(rows)]

    async def begin(tx: Tx) -> None:
        for id in ids:
            await generations.move(tx, id, SUBMITTING, now=2, claimed_at=2)
            await generations.move(tx, id, PROCESSING, now=2, provider_id=f"p-{id}", submitted_at=2, told=True)

    await ctx.db.write(begin)
    bites = [[word(ctx, ids[(n + step) % rows], n) for step in (0, 29, 7, 13)] for n in range(rows)]
    for bite in bites:
        await ctx.db.write(lambda tx, bite=bite: keep(tx, bite))
    assert await at_once(rows, lambda n: receive._believe_bite(ctx, bites[n])) == {None: rows}
    assert await number(ctx, "(SELECT COUNT(*) FROM generations WHERE status = 'failed')") == rows
    assert await number(ctx, "(SELECT COUNT(*) FROM events WHERE type = 'generation.failed')") == rows
    assert await number(ctx, "(SELECT COUNT(*) FROM deliveries WHERE note = 'failed')") == rows
    assert await number(ctx, "(SELECT COUNT(*) FROM deliveries WHERE note = 'late')") == 3 * rows
    assert await number(ctx, "(SELECT SUM(generations) FROM usage_days)") == rows
    assert await number(ctx, "(SELECT SUM(reserved_micros + unfinished) FROM balances)") == 0


def word(ctx: Context, id: str, number: int) -> ProviderWebhook:
    told = {"id": f"p-{id}", "status": "failed", "error": "It broke."}
    return ProviderWebhook(ctx.new_id(), "replicate", id, f"w{number}", json.dumps(told).encode(), 3)


async def keep(tx: Tx, bite: list[ProviderWebhook]) -> None:
    for delivery in bite:
        assert await provider_webhooks.insert(tx, delivery)


async def test_no_budget_is_overrun(ctx: Context) -> None:
    await ctx.db.write(lambda tx: clients.set_budget(tx, "c1", 10 * IMAGE_MICROS))
    found = await at_once(40, lambda n: accepted(ctx, f"k{n % 3}"))
    assert found == {202: 10, BudgetExceeded.__name__: 30}
    assert await number(ctx, "(SELECT reserved_micros FROM balances WHERE owner_id = 'c1')") == 10 * IMAGE_MICROS


async def test_nobody_has_more_unfinished_than_allowed(ctx: Context) -> None:
    ctx.settings = ctx.settings.model_copy(update={"max_unfinished_per_client": 12})
    found = await at_once(40, lambda n: accepted(ctx, f"k{n % 3}"))
    assert found == {202: 12, TooManyRequests.__name__: 28}
    assert await number(ctx, "(SELECT COUNT(*) FROM generations)") == 12


async def test_no_quota_is_overrun(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_quota, "MOST_CAMPAIGNS", 8)

    async def add(n: int) -> str:
        await ctx.db.write(lambda tx: people.add_campaign(tx, ctx, WHO, f"new {n}", None))
        return "added"

    assert await at_once(20, add) == {"added": 5, Conflict.__name__: 15}
    assert await number(ctx, "(SELECT COUNT(*) FROM campaigns)") == 8


async def accepted(ctx: Context, campaign_id: str) -> int:
    return (await ctx.db.write(lambda tx: accept(tx, ctx, campaign_id))).status


async def test_workers_never_take_one_row_twice_nor_more_than_may_be_in_flight(ctx: Context) -> None:
    for n in range(40):
        await accepted(ctx, f"k{n % 3}")
    taken: Counter[str] = Counter()

    async def work(n: int) -> None:
        for _ in range(4):
            taken.update(row.id for row in await queue.claim(ctx, f"w{n % 2}", ("image", "video"), 3, 60_000))

    assert await at_once(8, work) == {None: 8}
    assert (len(taken), set(taken.values())) == (10, {1})
    assert await number(ctx, "(SELECT COUNT(*) FROM generations WHERE status = 'submitting')") == 10


async def test_workers_never_look_after_one_row_twice(ctx: Context) -> None:
    for n in range(40):
        await accepted(ctx, f"k{n % 3}")
    await ctx.db.write(lambda tx: tx.run("UPDATE generations SET status = 'unclear', claimed_at = 1, due_at = 1"))
    taken: Counter[str] = Counter()

    async def work(n: int) -> None:
        while rows := await watch.claim(ctx, f"w{n % 2}", "unclear", 3, 60_000):
            taken.update(row.id for row in rows)

    assert await at_once(6, work) == {None: 6}
    assert (len(taken), set(taken.values())) == (40, {1})


@pytest.mark.parametrize("isolation", ["one lock", "serializable"])
async def test_works_that_collide_on_postgresql_are_run_again_and_no_caller_sees_it(isolation: Isolation) -> None:
    async with postgres_db(isolation) as db:
        await db.write(set_up)

        async def add_one(tx: Tx) -> None:
            """Look, then write: right only where nobody else comes between."""
            row = await tx.one("SELECT budget_micros FROM clients WHERE id = 'c1'")
            await asyncio.sleep(0.005)  # so that others come between
            await clients.set_budget(tx, "c1", (row["budget_micros"] or 0) + 1)

        assert await at_once(16, lambda _: db.write(add_one)) == {None: 16}
        row = await db.read(lambda tx: tx.one("SELECT budget_micros FROM clients WHERE id = 'c1'"))
        assert row["budget_micros"] == 16
        assert (db.runs > db.works) == (isolation == "serializable")


async def test_works_that_block_each_other_on_postgresql_are_run_again() -> None:
    """Without a lock before it, each of two holds what the other wants: PostgreSQL ends one of them."""
    async with postgres_db("none") as db:
        await db.write(set_up)
        both = asyncio.Barrier(2)

        async def rename(tx: Tx, *ids: str) -> None:
            await campaigns.rename(tx, ids[0], f"first {ids[0]}")
            if db.runs == 3:
                await both.wait()
            await campaigns.rename(tx, ids[1], f"then {ids[1]}")

        pairs = [("k1", "k2"), ("k2", "k1")]
        assert await at_once(2, lambda n: db.write(lambda tx: rename(tx, *pairs[n]))) == {None: 2}
        assert (db.works, db.runs) == (3, 4)


async def test_a_caller_that_leaves_and_a_database_that_closes_leave_no_half_work_on_postgresql() -> None:
    async with postgres_db() as db:
        await db.write(set_up)
        writing = [
            asyncio.create_task(db.write(lambda tx, n=n: clients.insert(tx, Client(f"n{n}", "n", 1)))) for n in range(9)
        ]
        await asyncio.sleep(0)
        writing[0].cancel()
        ended = await asyncio.gather(*writing, return_exceptions=True)
        assert [type(one) for one in ended] == [asyncio.CancelledError, *[type(None)] * 8]
        while db._writing:
            await asyncio.wait(db._writing)
        row = await db.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM clients"))
        assert row["n"] == 10
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await db.read(lambda tx: clients.insert(tx, Client("x", "x", 1)))
