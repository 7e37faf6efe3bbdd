"""Step 5: fetch the files before they expire and store them; then the row ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from backend.context import Context
from backend.core import filing
from backend.core.errors import (
    AnswerTooLarge,
    BadAnswer,
    BlockedAddress,
    CutShort,
    InvalidMedia,
    MediaUnavailable,
    NetworkError,
    StorageFull,
)
from backend.core.filing import MOST_FILES, Output
from backend.core.generation import CANCELED, COMPLETED, FAILED, Failure, Generation
from backend.db import generations, operations
from backend.db.connection import Tx
from backend.media import data_uris
from backend.steps import deadlines, leased, outputs
from backend.steps.outputs import KeptOutput

log = structlog.get_logger("backend.steps.collect")

MOST_TRIES = 8  # for an output that seems damaged: it is paid, and another try may bring it whole
TRIES_WHEN_GONE = 4  # a 404 right after the end may be a delivery host that lags behind
FULL_WAIT_MS = 30_000
UNKNOWN_LIFE_MS = 86_400_000  # providers that name no end keep outputs for a day at least


@dataclass(frozen=True)
class Lost:
    """An output that is not stored: why, and whether another try may bring it.

    `made` is False when it is no file that the provider made, so that it is not counted in the price.
    """

    index: int
    failure: Failure
    may_pass: bool
    made: bool = True


async def store(ctx: Context, row: Generation, worker: str) -> None:
    """Bring all outputs into our storage. `completed` is written only when their bytes would survive a power loss.

    What cannot be had is named beside what is kept; nothing else is lost with it. Without any file the row fails.
    """
    kept: list[KeptOutput] = []
    lost: list[Lost] = []
    try:
        await _bring_all(ctx, row, kept, lost)
    except StorageFull:  # no fault of the output, so it uses up none of its tries
        await leased.postpone(ctx, row, worker, FULL_WAIT_MS, tries=row.polls, **outputs.noted(kept))
        return
    except MediaUnavailable:
        await leased.postpone(ctx, row, worker, FULL_WAIT_MS, tries=row.polls + 1, **outputs.noted(kept))
        return
    if any(one.may_pass for one in lost):
        wait_ms = min(500 * 2 ** min(row.polls, 7), 60_000)
        await leased.postpone(ctx, row, worker, wait_ms, tries=row.polls + 1, **outputs.noted(kept))
    elif kept:
        await _finish(ctx, row, worker, kept, lost)
    else:
        await leased.fail(ctx, row, worker, lost[0].failure)


async def _bring_all(ctx: Context, row: Generation, kept: list[KeptOutput], lost: list[Lost]) -> None:
    """Put each output into one of the two lists; what is kept stays there when this raises.

    One after the other: the first that is there is the row's own, which alone gets a poster.
    """
    for index in range(len(row.outputs)):
        is_own = not kept and not any(one.may_pass for one in lost)
        one = await _bring(ctx, row, index, with_poster=is_own)
        if isinstance(one, KeptOutput):
            kept.append(one)
        else:
            lost.append(one)


async def _bring(ctx: Context, row: Generation, index: int, *, with_poster: bool) -> KeptOutput | Lost:
    """Return one output, or why it is not there. Raises StorageFull, MediaUnavailable."""
    if index >= MOST_FILES:
        return Lost(index, Failure("output_invalid", f"Of one prediction {MOST_FILES} files are stored."), False)
    try:
        return await outputs.bring(ctx, row, index, with_poster=with_poster)
    except BlockedAddress as error:
        return Lost(index, _unusable(error), False, made=False)
    except AnswerTooLarge as error:
        return Lost(index, _unusable(error), False)
    except (CutShort, InvalidMedia) as error:
        failure = Failure("output_invalid", f"The output is damaged: {error.message}", True)
    except BadAnswer as error:
        failure = _why_missing(error.status)
    except NetworkError as error:
        failure = Failure("provider_unavailable", error.message, True)
    log.warning("output_not_stored", generation_id=row.id, index=index, why=failure.message, tries=row.polls + 1)
    may_pass = not _is_here(row.outputs[index]) and row.polls + 1 < _most_tries(ctx, row, failure)
    return Lost(index, failure, may_pass)


def _is_here(output: str) -> bool:
    """Return whether it came inside the provider's answer: another try brings nothing else."""
    return data_uris.is_one(output) or bool(filing.inline_names([output]))


def _unusable(error: NetworkError) -> Failure:
    return Failure("output_invalid", f"The output cannot be stored: {error.message}")


def _why_missing(status: int | None) -> Failure:
    if status in (404, 410):
        return Failure("output_expired", "The provider does not have the output any more.", retryable=True)
    if status is not None and (status >= 500 or status in (408, 425, 429)):
        return Failure("provider_unavailable", "The provider does not hand out the output now.", retryable=True)
    return Failure("output_invalid", "The provider does not hand out the output it named.", retryable=True)


def _most_tries(ctx: Context, row: Generation, failure: Failure) -> int:
    """Return how often this is tried: a paid output is not given up at the first trouble, unless its time is over."""
    is_over = ctx.now() >= (row.outputs_expire_at or _given_up_at(row))
    if failure.code == "output_expired":
        return 1 if is_over else TRIES_WHEN_GONE
    if failure.code == "provider_unavailable":  # it is still there, only out of reach
        return row.polls + 1 if is_over and deadlines.has_caught_up(ctx) else row.polls + 2
    return MOST_TRIES


def _given_up_at(row: Generation) -> int:
    """Return until when an output is tried for of which nobody said when it expires."""
    return (row.deadline_at or row.created_at) + UNKNOWN_LIFE_MS


async def _finish(ctx: Context, row: Generation, worker: str, kept: list[KeptOutput], lost: list[Lost]) -> None:
    missing = [Output(one.index, state="missing", why=one.failure.message) for one in lost]
    made = len(kept) + sum(one.made for one in lost)
    fields: dict[str, Any] = {
        **filing.columns([*(one.output for one in kept), *missing]),
        "file_bytes": sum(one.output.bytes or 0 for one in kept) + kept[0].poster_bytes,
        "poster_name": kept[0].poster_name,
        "cost_actual_micros": _cost_micros(ctx, row, made),
        "progress": 1.0,
    }
    if await leased.move(ctx, row, COMPLETED, worker, **fields):
        # Not before: after a crash in between, the next worker needs the file that came with the answer. The sweep
        # finds what a crash after the move leaves.
        await ctx.store.delete_all(filing.inline_names(row.outputs))
    else:
        names = [one.output.file_name for one in kept] + [kept[0].poster_name]
        await ctx.db.write(lambda tx: _leave(tx, ctx, row.id, [name for name in names if name]))


def _cost_micros(ctx: Context, row: Generation, made: int) -> int | None:
    """Return what the provider said it bills, else the list price of what it made, else what was estimated."""
    if row.cost_actual_micros is not None:
        return row.cost_actual_micros
    model = ctx.catalog.model(row.provider, row.model)
    listed = model.cost_micros(row.params, made, row.source) if model else None
    return row.cost_estimated_micros if listed is None else listed


async def _leave(tx: Tx, ctx: Context, id: str, names: list[str]) -> None:
    """Throw away what the row does not name: another worker was faster, and the names that it wrote are the same."""
    row = await generations.get(tx, id)
    if row is None or row.status in (FAILED, CANCELED):
        await operations.throw_away(tx, names, ctx.now())
    elif row.status == COMPLETED:
        named = {row.file_name, row.poster_name, *(one.get("file_name") for one in row.more_files or [])}
        await operations.throw_away(tx, [name for name in names if name not in named], ctx.now())
