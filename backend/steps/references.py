"""Turn an asset, image or video into a URL that a provider can fetch.

The first of these that there is: the provider's own output while it is fresh, which moves no bytes; a link to the store
when that is public; a signed link of ours when the world can reach us; an upload to the provider's file store; a data
URI when the file is small.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend import media
from backend.config import is_public
from backend.context import Context
from backend.core import filing
from backend.core.errors import (
    InvalidMedia,
    MediaUnavailable,
    NotFound,
    NotSent,
    ProviderRefused,
    ProviderUnavailable,
    TooLarge,
)
from backend.core.generation import COMPLETED, Generation
from backend.core.people import Asset
from backend.db import assets, generations, operations
from backend.db.connection import Tx
from backend.live import links

FRESH_MS = 600_000  # an output that expires sooner may be gone before the model fetches it
LINK_LIFE_S = 7200  # a prediction may wait in the provider's queue before its model fetches what it starts from
_NO_WAY = "The provider has no store for files, and cannot fetch this one: BASE_URL has to be an address it can reach."


@dataclass(frozen=True)
class Stored:
    """A stored file that is to be shown to a provider. `fresh_url` is where the provider itself still has it."""

    noun: str
    id: str
    variant: str
    file_name: str
    content_type: str
    fresh_url: str | None = None


async def resolve(ctx: Context, generation: Generation) -> tuple[list[str], str | None]:
    """Return the URLs of the images to start from, and of the one to end on.

    Raises ProviderUnavailable (try again), ProviderRefused with `source_failed` (it will not work).
    """
    source = generation.source
    images = [await _url(ctx, generation, found) for found in await _files(ctx, generation, source)]
    end = [await _url(ctx, generation, found) for found in await _files(ctx, generation, source.get("end_image") or {})]
    return images, end[0] if end else None


async def names(ctx: Context, generation: Generation) -> list[str]:
    """The stored files it starts from, whole, for work that is done here. Raises ProviderRefused as `resolve`."""
    return [one.file_name or "" for source in generation.sources for one in await _rows(ctx, source)]


async def _files(ctx: Context, generation: Generation, source: dict[str, Any]) -> list[Stored]:
    return [await _stored(ctx, generation, one, source) for one in await _rows(ctx, source)]


async def _rows(ctx: Context, source: dict[str, Any]) -> list[Asset | Generation]:
    """What a source names, each with its file. Raises ProviderRefused when one has none."""
    found: list[Asset | Generation] = []
    if id := source.get("asset_id"):
        asset = await ctx.db.read(lambda tx: assets.get(tx, id))
        if asset is None:
            raise ProviderRefused("An asset it needs was deleted.", code="source_failed")
        found.append(asset)
    for name in ("image_id", "video_id"):
        if other := source.get(name):
            row = await ctx.db.read(lambda tx, other=other: generations.get(tx, other))  # type: ignore[misc]
            found.append(_with_result(row))
    return found


def _with_result(row: Generation | None) -> Generation:
    if row is None or row.status != COMPLETED or row.file_name is None or row.content_type is None:
        raise ProviderRefused("A generation it needs has no result.", code="source_failed", retryable=True)
    if row.media_state == "unread" or not row.content_type.startswith(f"{row.kind}/"):
        raise ProviderRefused(f"The result it needs could not be read as {row.kind}.", code="source_failed")
    return row


async def _stored(ctx: Context, generation: Generation, one: Asset | Generation, source: dict[str, Any]) -> Stored:
    """As it is shown to a provider: a video is one of its frames."""
    noun = "assets" if isinstance(one, Asset) else f"{one.kind}s"
    name, content_type = one.file_name or "", one.content_type or ""
    if one.kind == "video":
        return await _frame(ctx, noun, one, name, source)
    fresh_url = None if isinstance(one, Asset) else _fresh_url(ctx, generation, one)
    return Stored(noun, one.id, "data", name, content_type, fresh_url)


def _fresh_url(ctx: Context, generation: Generation, row: Generation) -> str | None:
    """Where the provider itself still has the result, if that is the provider that is asked and it hands it to all."""
    own, provider = filing.output(row), ctx.providers.get(generation.account_key)
    if own is None or provider is None or provider.outputs_need_key:
        return None
    if row.account_key != generation.account_key or (row.outputs_expire_at or 0) <= ctx.now() + FRESH_MS:
        return None
    url = row.outputs[own.index] if own.index < len(row.outputs) else ""
    return url if url[:4].lower() == "http" else None


async def _frame(ctx: Context, noun: str, video: Asset | Generation, file_name: str, source: dict[str, Any]) -> Stored:
    """Return one frame of a stored video. It is made once and kept beside the video.

    It takes one of the client's places in the cage, so that one client's films do not hold up the others'.
    """
    which: Literal["first", "last"] = "first" if source.get("frame") == "first" else "last"
    name = filing.frame(video.id, which)
    if await ctx.store.size(name) is None:
        spooled = ctx.spool.new(name)
        try:
            place = media.upload(video.client_id)
            async with _local(ctx, file_name) as path:
                await ctx.cage.frame(path, spooled, which=which, place=place)
        except MediaUnavailable as error:
            raise ProviderUnavailable(error.message) from error
        except InvalidMedia as error:
            why = f"No frame can be taken from the video. {error.message}"
            raise ProviderRefused(why, code="source_failed") from error
        await ctx.store.put(spooled, name)
        await ctx.db.write(lambda tx: _leave_without_row(tx, ctx, name))
    return Stored(noun, video.id, which, name, "image/jpeg")


async def _leave_without_row(tx: Tx, ctx: Context, name: str) -> None:
    """Throw the frame away when its video has no row any more.

    The video can be deleted while its frame is made, if this generation was canceled just then.
    """
    await operations.throw_away(tx, await operations.without_row(tx, [name]), ctx.now())


async def _url(ctx: Context, generation: Generation, stored: Stored) -> str:
    if stored.fresh_url:
        return stored.fresh_url
    if url := await ctx.store.url(stored.file_name):
        return url
    if is_public(ctx.settings.public_url):
        return links.link(ctx, stored.noun, stored.id, stored.variant, base=ctx.settings.public_url, life_s=LINK_LIFE_S)
    limit = ctx.catalog.providers[generation.provider].file_limit_mb * 1_000_000
    async with _local(ctx, stored.file_name, limit) as path:
        return await _hand_over(ctx, generation, path, stored)


async def _hand_over(ctx: Context, generation: Generation, path: Path, stored: Stored) -> str:
    """Put the file into the provider's file store; return its URL.

    Without such a store, or when it refuses, a small file becomes a data URI.
    """
    refusal: Exception = ProviderRefused(_NO_WAY, code="source_failed")
    if uploads := ctx.providers[generation.account_key].uploads:
        try:
            return await uploads.upload(path, stored.file_name, stored.content_type)
        except (ProviderRefused, NotSent) as error:
            refusal = error
    limit = ctx.catalog.providers[generation.provider].data_uri_limit_kb * 1024
    if uri := await media.in_thread(_data_uri, path, stored.content_type, limit):
        return uri
    raise refusal


def _data_uri(path: Path, content_type: str, most_bytes: int) -> str | None:
    """Return the file as a data URI, None when it has more bytes than `most_bytes`."""
    if path.stat().st_size > most_bytes:
        return None
    return f"data:{content_type};base64,{base64.b64encode(path.read_bytes()).decode()}"


@asynccontextmanager
async def _local(ctx: Context, file_name: str, most_bytes: int | None = None) -> AsyncIterator[Path]:
    """Lend a stored file to read from. Raises ProviderRefused when it is gone or has too many bytes, StorageFull."""
    try:
        async with ctx.store.local(file_name, most_bytes=most_bytes) as path:
            yield path
    except NotFound:
        raise ProviderRefused("A file it needs is not in the storage.", code="source_failed") from None
    except TooLarge:
        raise ProviderRefused("A file it needs is larger than the provider takes.", code="source_failed") from None
