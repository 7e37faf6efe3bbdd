"""What was made and what it cost, added up for those who pay."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from itertools import groupby

from backend.context import Context
from backend.core.errors import InvalidInput
from backend.core.models import Model
from backend.core.people import Caller
from backend.db import holdings, usage
from backend.db.holdings import Held
from backend.db.usage import DAY_MS, SUMS, Scope, Sum
from backend.manage import storage_quota

MOST_GROUPS = 10_000
MOST_SUMS = 50_000  # of each model in each group


@dataclass(frozen=True)
class Asked:
    """What is to be added up. Times are milliseconds since 1970; days are counted whole."""

    group: str
    since: int | None = None
    until: int | None = None
    client_id: str | None = None
    campaign_id: str | None = None

    @property
    def first(self) -> int | None:
        """The number of the first day, since 1970 in UTC."""
        return None if self.since is None else self.since // DAY_MS

    @property
    def end(self) -> int | None:
        """The number of the day after the last one. A time within a day takes in all of it."""
        return None if self.until is None else -(-self.until // DAY_MS)


@dataclass(frozen=True)
class KeptByClient:
    """What one client keeps here now, and how many bytes it may keep."""

    held: Held
    limit_bytes: int


@dataclass(frozen=True)
class Report:
    """The groups, their sum, and the models they used: their prices say when they were looked up.

    `kept` is there when the report is about one client.
    """

    items: list[Sum]
    total: Sum
    models: list[Model]
    kept: KeptByClient | None = None


async def report(ctx: Context, caller: Caller, asked: Asked) -> Report:
    """Return what the caller may see of it. Raises InvalidInput when it ends before it begins, or would be too long."""
    if asked.since is not None and asked.until is not None and asked.since > asked.until:
        raise InvalidInput.of("to", "lies before from")
    own = caller.only_client
    if own and asked.client_id not in (None, own):
        return Report([], add_up([]), [])
    scope = Scope(asked.first, asked.end, own or asked.client_id, asked.campaign_id)
    sums = await ctx.db.read(lambda tx: usage.totals(tx, asked.group, scope, MOST_SUMS + 1))  # one more shows: too many
    kept = await _kept(ctx, scope.client_id) if scope.client_id else None
    items, total = await asyncio.to_thread(_grouped, sums)  # a long one takes a tenth of a second
    if len(sums) > MOST_SUMS or len(items) > MOST_GROUPS:
        raise InvalidInput.of("group_by", f"makes more than {MOST_GROUPS} groups: narrow it by from and to")
    used = sorted({(str(one.model), str(one.provider)) for one in sums})
    known = (ctx.catalog.model(provider, name) for name, provider in used)
    return Report(items, total, [model for model in known if model], kept)


async def _kept(ctx: Context, client_id: str) -> KeptByClient:
    return KeptByClient(await ctx.db.read(lambda tx: holdings.get(tx, client_id)), storage_quota.limit_bytes(ctx))


def _grouped(sums: list[Sum]) -> tuple[list[Sum], Sum]:
    return [add_up(list(those)) for _, those in groupby(sums, key=lambda one: one.part)], add_up(sums)


def add_up(sums: list[Sum]) -> Sum:
    """Return the sum of all, with the id and the name of the first."""
    first = sums[0] if sums else Sum(None, None, None, None)
    return replace(first, provider=None, model=None, **{name: sum(getattr(one, name) for one in sums) for name in SUMS})
