"""Ask again for what failed, with the sources that failed it.

Everything is counted and admitted before the first row is written: one click may stand for fifty paid generations.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.context import Context
from backend.core.errors import Conflict, NotFound
from backend.core.generation import COMPLETED, FINAL, QUEUED, WAITING, Generation, Kind
from backend.core.people import Caller
from backend.db import balances
from backend.db.connection import Tx
from backend.manage import access, backlog, storage_quota
from backend.steps import sources

MOST = 50  # generations that one retry makes at most


@dataclass(frozen=True)
class Plan:
    """What a retry makes anew, each once. Sources come before what starts from them; the one asked for is the last."""

    olds: Sequence[Generation]
    unfinished: frozenset[str]  # sources that are not ended, and need no retry

    @property
    def kinds(self) -> Counter[Kind]:
        """Return how many there are of each kind."""
        return Counter(old.kind for old in self.olds)


async def plan(tx: Tx, ctx: Context, caller: Caller, id: str) -> Plan:
    """Return what a retry of this generation makes; nothing is written.

    Raises NotFound, and Conflict unless it failed or was canceled and all it needs is there, or when it is too much.
    """
    asked = await access.generation(tx, caller, id)
    if not _is_lost(asked):
        message = f"The generation is {asked.shown_status}: only a failed one can be retried."
        raise Conflict(message, code="not_retryable")
    olds: list[Generation] = []
    seen, unfinished = set[str](), set[str]()
    steps = [(asked, False)]  # a walk in depth without recursion: a chain of sources may be longer than the stack
    while steps:
        old, is_done = steps.pop()
        if is_done:
            olds.append(old)
        elif old.id not in seen:
            seen.add(old.id)
            _check(ctx, old, len(seen))
            needed = await _sources(tx, caller, old)
            unfinished |= {one.id for one in needed if one.status not in FINAL}
            steps += [(old, True), *((one, False) for one in needed if _is_lost(one))]
    return Plan(olds, frozenset(unfinished))


async def retry(tx: Tx, ctx: Context, caller: Caller, id: str, allowed: Counter[Kind] | None = None) -> Generation:
    """Write a new generation with the same request, and one for each source that failed; return the former.

    Each names the one that it replaces. `allowed` is how many of each kind were counted for the rate limit. Raises as
    `plan`, TooManyRequests when too much is unfinished, BudgetExceeded when all together costs more than is left.
    """
    wanted = await plan(tx, ctx, caller, id)
    if allowed is not None and not wanted.kinds <= allowed:
        raise Conflict("Something it starts from has just failed: ask again.", code="conflict")
    rows, missing = _fresh_all(ctx, caller, wanted)
    await _admit(tx, ctx, rows)
    for row in rows:
        await sources.keep(tx, row, missing[row.id])
    return rows[-1]


def _is_lost(row: Generation) -> bool:
    return row.status in FINAL and row.status != COMPLETED


def _check(ctx: Context, old: Generation, number: int) -> None:
    model = ctx.catalog.model(old.provider, old.model)
    if model is None or model.retired or old.provider not in ctx.offered:
        raise Conflict(f"{old.model} is not offered here any more.", code="not_retryable")
    if number > MOST:
        message = f"This would make more than {MOST} generations anew: retry what it starts from first."
        raise Conflict(message, code="retry_too_large")


async def _sources(tx: Tx, caller: Caller, old: Generation) -> list[Generation]:
    """Return the generations it starts from. Raises Conflict when one of them, or an asset, was deleted."""
    found = {}
    try:
        for source in (old.source, old.source.get("end_image") or {}):
            if "asset_id" in source:
                await access.asset(tx, caller, source["asset_id"])
            for name in ("image_id", "video_id"):
                if name in source and source[name] not in found:
                    found[source[name]] = await access.generation(tx, caller, source[name])
    except NotFound as gone:
        raise Conflict("Something it starts from was deleted.", code="not_retryable") from gone
    return list(found.values())


def _fresh_all(ctx: Context, caller: Caller, wanted: Plan) -> tuple[list[Generation], dict[str, set[str]]]:
    """Return the new rows, and what each of them waits for."""
    anew = {old.id: ctx.new_id() for old in wanted.olds}
    rows, missing = [], {}
    for old in wanted.olds:
        source = _anew(old.source, anew)
        row = _fresh(ctx, caller, old, anew[old.id], source)
        missing[row.id] = {one for one in row.source_ids if one in wanted.unfinished or one in anew.values()}
        rows.append(replace(row, status=WAITING) if missing[row.id] else row)
    return rows, missing


def _anew(source: dict[str, Any], anew: dict[str, str]) -> dict[str, Any]:
    """Return the same sources, with the new id in place of each that is retried too."""
    return {
        name: _anew(value, anew) if isinstance(value, dict) else anew.get(value, value)
        for name, value in source.items()
    }


def _fresh(ctx: Context, caller: Caller, old: Generation, id: str, source: dict[str, Any]) -> Generation:
    """Return the old request as a new row, without anything that came of it."""
    now = ctx.now()
    kept: dict[str, Any] = {name: getattr(old, name) for name in _REQUEST}
    return Generation(
        **kept,
        id=id,
        status=QUEUED,
        key_id=caller.key_id,
        retry_of=old.id,
        source=source,
        nonce=secrets.token_urlsafe(24),
        created_at=now,
        due_at=now,
    )


async def _admit(tx: Tx, ctx: Context, rows: Sequence[Generation]) -> None:
    """Admit all rows, for every client and campaign they are of.

    Raises BudgetExceeded, TooManyRequests, ClientFull.
    """
    for client_id in dict.fromkeys(row.client_id for row in rows):
        theirs = [row for row in rows if row.client_id == client_id]
        micros = Counter[str]()
        for row in theirs:
            micros[row.campaign_id] += row.reserved_micros
        for campaign_id, of_campaign in micros.items():
            await balances.admit(tx, client_id, campaign_id, of_campaign, of_client=micros.total())
        await storage_quota.admit(tx, ctx, client_id)
        await backlog.admit(tx, ctx, client_id, len(theirs))


_REQUEST = (
    "kind",
    "client_id",
    "campaign_id",
    "provider",
    "model",
    "prompt",
    "params",
    "metadata",
    "webhook_url",
    "cost_estimated_micros",
)
