"""Assets: files that clients bring, by upload or by URL. Each is checked before its row is written."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend import media
from backend.context import Context
from backend.core import filing
from backend.core.errors import (
    AnswerTooLarge,
    BadAnswer,
    BlockedAddress,
    Conflict,
    InvalidInput,
    InvalidMedia,
    MediaBusy,
    MediaUnavailable,
    NoPlace,
    NotFound,
    NotSent,
    OutOfSpace,
    StorageFull,
    TooManyRequests,
    Unanswered,
    Unavailable,
)
from backend.core.people import Asset, Caller
from backend.core.places import Places
from backend.db import assets, audit, clients, operations, sources
from backend.db.audit import Subject
from backend.db.connection import Tx
from backend.manage import access, storage_quota

Look = Callable[[Coroutine[Any, Any, media.Probe]], Awaitable[media.Probe]]

FETCH_LIMIT_S = 480  # less than an Idempotency-Key is held for a request that still runs
FLOOR_BYTES = 50_000  # a second: what is slower after half a minute is given up
PLACE_S = 20.0


def too_many() -> TooManyRequests:
    """Return the refusal for a client whose fetches have all been under way for too long."""
    many = "Too many files are being fetched for this client."
    return TooManyRequests(many, code="too_many_fetches", retry_after=10)


of_clients = Places(4, PLACE_S, refusal=too_many)  # fetches: one client does not use up all threads and sockets
of_hosts = Places(8, PLACE_S)  # nor can many together make of us a load on somebody else


async def fetch(ctx: Context, client_id: str, url: str, room: int) -> Path:
    """Return the spooled file behind a client's URL. `room` is how many bytes were reserved for it.

    No private address is ever reached. Raises InvalidInput, ClientFull when only the room is too small,
    TooManyRequests, Unavailable.
    """
    target = ctx.spool.new()
    most = min(asset_bytes(ctx), room)
    with _fetching(ctx, room):
        async with of_clients.take(client_id):
            await ctx.http.fetch(
                url, target, cap_bytes=most, total_s=FETCH_LIMIT_S, hops=3, places=of_hosts, floor=FLOOR_BYTES
            )
    return target


@contextmanager
def _fetching(ctx: Context, room: int) -> Iterator[None]:
    """Turn what goes wrong with a URL into what its client is told."""
    try:
        yield
    except BlockedAddress as error:
        raise InvalidInput.of("url", "this address must not be reached", code="blocked_address") from error
    except NoPlace as error:
        raise Unavailable("Too much is being fetched from this host.", code="host_busy", retry_after=10) from error
    except AnswerTooLarge as error:
        if room < asset_bytes(ctx):
            raise storage_quota.full(ctx) from error
        raise InvalidInput.of("url", f"more than {ctx.settings.max_asset_mb} MB", code="too_large") from error
    except (BadAnswer, NotSent, Unanswered) as error:
        raise InvalidInput.of("url", "nothing could be fetched from there", code="fetch_failed") from error


def asset_bytes(ctx: Context) -> int:
    """Return how many bytes an asset may have."""
    return ctx.settings.max_asset_mb * 1_000_000


async def take_in(ctx: Context, client_id: str, spooled: Path, name: str | None, look: Look) -> Asset:
    """Look into a spooled file and store it under a new id. The row is still to be written. Raises InvalidInput.

    The spooled file is used up. Only the printable part of its name is kept. `look` waits for the inspection, or gives
    it up with an error of its own.
    """
    id = ctx.new_id()
    try:
        with _storing():
            found = await look(ctx.cage.probe(spooled, place=media.upload(client_id)))
            size, digest = await media.in_thread(_measure, spooled)
            file_name = id + media.extension(found.content_type)
            await ctx.store.put(spooled, file_name)
    finally:
        # The store has taken it, or nobody will: what stays in the spool counts as used disk.
        await media.in_thread(lambda: spooled.unlink(missing_ok=True))
    return Asset(
        id=id,
        client_id=client_id,
        kind=found.kind,
        name="".join(letter for letter in name or "" if letter.isprintable())[:200] or None,
        file_name=file_name,
        content_type=found.content_type,
        bytes=size,
        sha256=digest,
        width=found.width,
        height=found.height,
        duration_s=found.duration_s,
        created_at=ctx.now(),
    )


@contextmanager
def _storing() -> Iterator[None]:
    """Turn the reason why a file is not kept into what its client is told."""
    try:
        yield
    except InvalidMedia as error:
        raise InvalidInput.of("file", error.message, code="invalid_media") from error
    except MediaBusy as error:
        raise TooManyRequests(error.message, code="media_busy", retry_after=5) from error
    except MediaUnavailable as error:
        raise Unavailable(error.message, retry_after=5) from error
    except StorageFull as error:
        raise OutOfSpace(retry_after=60) from error


async def add(tx: Tx, asset: Asset) -> Asset:
    """Write the row of a file that is stored. Raises NotFound when its client was deleted meanwhile."""
    if await clients.get(tx, asset.client_id) is None:
        raise NotFound("There is no such client.", code="client_not_found")
    await assets.insert(tx, asset)
    return asset


async def leave(ctx: Context, asset: Asset) -> None:
    """Throw the file away, if it has no row: its row was not written, or so it seems to the caller."""

    async def work(tx: Tx) -> None:
        if await assets.get(tx, asset.id) is None:
            await operations.throw_away(tx, [asset.file_name], ctx.now())

    await ctx.db.write(work)


async def delete(tx: Tx, ctx: Context, caller: Caller, id: str) -> None:
    """Remove the row now and its bytes soon after. Raises NotFound, Conflict while something unfinished needs it."""
    asset = await access.asset(tx, caller, id)
    if await sources.are_needed(tx, id=id):
        raise Conflict("A generation that is unfinished needs it.", code="in_use")
    await operations.throw_away(tx, filing.of_asset(asset), ctx.now())
    await assets.delete(tx, id)
    gone = {name: getattr(asset, name) for name in ("kind", "name", "file_name", "bytes", "sha256")}
    await audit.record(tx, caller, "asset.deleted", Subject("asset", id, asset.client_id), ctx.now(), old=gone)


def _measure(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return path.stat().st_size, digest.hexdigest()
