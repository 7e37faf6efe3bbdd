"""Step 5: the files are fetched before they expire, checked and stored; then the row ends."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any

import structlog

from backend import filing, lifecycle, media, room, storage
from backend.context import Context
from backend.db import generations, operations
from backend.db.connection import Tx
from backend.errors import (
    AnswerTooLarge,
    BadAnswer,
    BlockedAddress,
    InvalidMedia,
    NotSent,
    StorageFull,
    Unanswered,
)
from backend.model import CANCELED, COMPLETED, FAILED, Failure, Generation

log = structlog.get_logger("backend.steps.collect")

FETCH_LIMIT_S = 900
MOST_TRIES = 8
TRIES_WHEN_GONE = 4  # a 404 right after the end may be a delivery host that lags behind
FULL_WAIT_MS = 30_000


async def store(ctx: Context, row: Generation, worker: str) -> None:
    """Fetch one output into our storage; `completed` is written only when its bytes would survive power loss."""
    spooled, poster = ctx.storage.spool(row.id), ctx.storage.spool(filing.poster(row.id))
    try:
        fetched = await _recover(ctx, row, spooled) or await _fetch(ctx, row, spooled)
        found = await media.in_thread(media.inspect, spooled, poster)
        if found.kind != row.kind:
            raise InvalidMedia(f"the provider sent {found.content_type}")
        await _finish(ctx, row, worker, spooled, poster, found, fetched)
    except StorageFull:
        await lifecycle.postpone(ctx, row, worker, FULL_WAIT_MS, tries=row.polls)
    except (BlockedAddress, AnswerTooLarge) as error:
        await _fail(ctx, row, worker, Failure("output_invalid", f"The output cannot be stored: {error.message}"))
    except InvalidMedia as error:
        await _again_or_fail(
            ctx, row, worker, Failure("output_invalid", f"The output is damaged: {error.message}", True)
        )
    except BadAnswer as error:
        await _again_or_fail(ctx, row, worker, _why_missing(error.status))
    except (NotSent, Unanswered) as error:
        await _again_or_fail(ctx, row, worker, Failure("provider_unavailable", error.message, True))
    else:
        return
    await media.in_thread(_remove, spooled, poster)  # a crash leaves them to the sweep


async def _recover(ctx: Context, row: Generation, target: Path) -> tuple[int, str] | None:
    """The bytes an attempt stored that was cut off before its commit: the provider may not have them any more."""
    if row.attempts < 2:
        return None
    for name in (filing.result(row.id, suffix) for suffix in media.extensions(row.kind)):
        if await ctx.storage.size(name):
            return await storage.spool(target, ctx.storage.open(name))
    return None


async def _fetch(ctx: Context, row: Generation, target: Path) -> tuple[int, str]:
    """The output's bytes in `target`; how many, and their SHA-256."""
    url, provider = row.outputs[0], ctx.providers.get(row.provider)
    if url.startswith("data:"):
        return await media.in_thread(_decode, url, target)
    if provider is None:
        raise NotSent(f"{row.provider} is not offered here now")
    fetched = await ctx.http.fetch(
        url,
        target,
        cap_bytes=ctx.settings.max_output_mb * 1_000_000,
        total_s=FETCH_LIMIT_S,
        hosts=provider.may_serve,
        trusted=provider.is_own,
        hops=2,
    )
    return fetched.bytes, fetched.sha256


async def _finish(
    ctx: Context,
    row: Generation,
    worker: str,
    spooled: Path,
    poster: Path,
    found: media.Probe,
    fetched: tuple[int, str],
) -> None:
    name, poster_name = filing.result(row.id, media.extension(found.content_type)), filing.poster(row.id)
    file_bytes = fetched[0] + await asyncio.to_thread(_size, poster)
    await ctx.storage.keep_all([(spooled, name), (poster, poster_name)])
    fields: dict[str, Any] = {
        "file_name": name,
        "poster_name": poster_name,
        "content_type": found.content_type,
        "bytes": fetched[0],
        "file_bytes": file_bytes,
        "sha256": fetched[1],
        "width": found.width,
        "height": found.height,
        "duration_s": found.duration_s,
        "cost_actual_micros": _cost_micros(ctx, row),
        "progress": 1.0,
    }
    if not await lifecycle.move(ctx, row, COMPLETED, worker, **fields):
        await ctx.db.write(lambda tx: _leave(tx, ctx, row.id, [name, poster_name]))


def _size(path: Path) -> int:
    return path.stat().st_size


def _cost_micros(ctx: Context, row: Generation) -> int | None:
    """What the provider billed by its own word, else the list price, else what was estimated."""
    if row.cost_actual_micros is not None:
        return row.cost_actual_micros
    model = ctx.catalog.models.get(row.model)
    return model.cost_micros(row.params) if model else row.cost_estimated_micros


async def _leave(tx: Tx, ctx: Context, id: str, names: list[str]) -> None:
    """Another worker was faster, with the same bytes; or the row will never have them: then they go."""
    row = await generations.get(tx, id)
    if row is None or row.status in (FAILED, CANCELED):
        await operations.throw_away(tx, names, ctx.now())


def _why_missing(status: int | None) -> Failure:
    if status in (404, 410):
        return Failure("output_expired", "The provider does not have the output any more.", retryable=True)
    return Failure("output_invalid", "The provider does not hand out the output it named.", retryable=True)


async def _again_or_fail(ctx: Context, row: Generation, worker: str, failure: Failure) -> None:
    """A paid output is not given up at the first trouble, unless its time is over."""
    log.warning("output_not_stored", generation_id=row.id, why=failure.message, tries=row.polls + 1)
    most = MOST_TRIES
    if failure.code == "output_expired":
        most = 1 if ctx.now() >= (row.outputs_expire_at or 0) else TRIES_WHEN_GONE
    if failure.code == "provider_unavailable":  # it is still there, only out of reach
        most = row.polls + 1 if ctx.now() >= (row.outputs_expire_at or 0) else row.polls + 2
    if row.polls + 1 >= most:
        await _fail(ctx, row, worker, failure)
    else:
        await lifecycle.postpone(ctx, row, worker, min(500 * 2 ** min(row.polls, 7), 60_000), tries=row.polls + 1)


async def _fail(ctx: Context, row: Generation, worker: str, failure: Failure) -> None:
    await lifecycle.move(ctx, row, FAILED, worker, failure=failure, possibly_charged=True)


def _decode(url: str, target: Path) -> tuple[int, str]:
    """The bytes of a data URI, which Replicate's synchronous mode sends for small outputs."""
    head, _, text = url.partition(",")
    try:
        content = base64.b64decode(text, validate=True) if head.endswith(";base64") else b""
    except (binascii.Error, ValueError):
        content = b""
    with room.needed():
        target.write_bytes(content)
    return len(content), hashlib.sha256(content).hexdigest()


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
