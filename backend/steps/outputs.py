"""Fetch one output of a prediction whole, look at it, and keep it even when we cannot read it: it is paid."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend import media, storage
from backend.context import Context
from backend.core import filing
from backend.core.errors import BadAnswer, CutShort, InvalidMedia, MediaUnavailable, NotFound, NotSent
from backend.core.filing import Output
from backend.core.generation import Generation
from backend.http import Fetched, unzip
from backend.media import data_uris, naming

FETCH_LIMIT_S = 900  # for the whole download: a server that drips bytes never runs into a timeout between them
ZIPPED = frozenset({"gzip", "x-gzip"})
LAST_LOOK = 5  # attempts: from then on a file is stored without a look, which may be what ended the process
LOOKS_MISSED = 3  # the provider will not have the file for ever


@dataclass(frozen=True)
class KeptOutput:
    """An output that is stored, and its poster if it has one: its name and how many bytes."""

    output: Output
    poster_name: str | None = None
    poster_bytes: int = 0


async def bring(ctx: Context, row: Generation, index: int, *, with_poster: bool) -> KeptOutput:
    """Fetch one output and keep it. Once this returns it survives a power loss, also before its row says so.

    Raises InvalidMedia when nothing came that could be a file, NetworkError, StorageFull, MediaUnavailable.
    """
    if known := await _known(ctx, row, index, with_poster):
        return known
    spooled, poster = ctx.spool.new(f"{row.id}-{index}"), ctx.spool.new(filing.poster(row.id))
    try:
        length, sha256 = await _recover(ctx, row, index, spooled) or await _fetch(ctx, row, row.outputs[index], spooled)
        seen, poster_bytes = await _look(ctx, row, index, spooled, poster if with_poster else None)
        name = filing.result(row.id, naming.suffix(seen.content_type or naming.UNKNOWN), index)
        files, poster_name = [(spooled, name)], None
        if poster_bytes:
            poster_name = filing.poster(row.id)
            files.append((poster, poster_name))
        await ctx.store.put_all(files)
    except BaseException:
        await asyncio.to_thread(_remove, spooled, poster)  # a crash leaves them to the sweep
        raise
    if with_poster and not poster_name and row.attempts > 1:
        await ctx.store.delete(filing.poster(row.id))  # of a try that broke off
    return KeptOutput(replace(seen, file_name=name, bytes=length, sha256=sha256), poster_name, poster_bytes)


def noted(kept: list[KeptOutput]) -> dict[str, Any]:
    """Return what a row that has to wait for its other outputs notes of those that are stored."""
    return {
        "more_files": [filing.brief(one.output) for one in kept] or None,
        "poster_name": kept[0].poster_name if kept else None,
    }


async def _known(ctx: Context, row: Generation, index: int, with_poster: bool) -> KeptOutput | None:
    """Return what an earlier try stored and noted; None without one, or when its poster is missing."""
    one = next((Output(**each) for each in row.more_files or [] if each["index"] == index), None)
    poster_name = row.poster_name if with_poster else None
    if one is None or (with_poster and one.width and not poster_name):
        return None
    if await ctx.store.size(one.file_name or "") != one.bytes:
        return None
    return KeptOutput(one, poster_name, (await ctx.store.size(poster_name) or 0) if poster_name else 0)


async def _look(ctx: Context, row: Generation, index: int, spooled: Path, poster: Path | None) -> tuple[Output, int]:
    """What the file is, and the bytes of the poster that was written, 0 without one.

    That we cannot read it, or that it is of another kind, is said and no reason to lose it.
    """
    found, why = None, ""
    try:
        found = await _inspect(ctx, row, spooled, poster)
    except InvalidMedia as error:
        why = error.message
    named, poster_bytes = await asyncio.to_thread(_measure, spooled, poster)
    if found is None:
        return Output(index, content_type=named, state="unread", why=why), 0
    # A container with sound alone is named as sound; of films the name says more than the decoder was asked.
    content_type = named if named.startswith(f"{found.kind}/") else found.content_type
    seen = Output(
        index,
        content_type=content_type,
        width=found.width,
        height=found.height,
        duration_s=found.duration_s,
        why=None if found.kind == row.kind else f"The model makes {row.kind}s, and this is {content_type}.",
    )
    return seen, poster_bytes if found.width else 0


async def _inspect(ctx: Context, row: Generation, spooled: Path, poster: Path | None) -> media.Probe:
    """What the file is; its poster is written. Raises InvalidMedia, StorageFull, MediaUnavailable."""
    if row.attempts >= LAST_LOOK:  # whoever looked may have died of it
        raise InvalidMedia("It was not looked into, because storing it was interrupted several times.")
    try:
        if poster is None:
            return await ctx.cage.probe(spooled, place=media.OUTPUT)
        return await ctx.cage.inspect(spooled, poster, place=media.OUTPUT)
    except MediaUnavailable:
        if row.polls < LOOKS_MISSED:
            raise
        raise InvalidMedia("It was not looked into, because no process for that could be started.") from None


async def _recover(ctx: Context, row: Generation, index: int, target: Path) -> tuple[int, str] | None:
    """Write the bytes that an earlier attempt stored: the provider may not have them any more. None without any."""
    if row.attempts < 2 and not row.polls:
        return None
    for suffix in dict.fromkeys(naming.SUFFIXES.values()):
        name = filing.result(row.id, suffix, index)
        if await ctx.store.size(name):
            return await storage.write(target, ctx.store.open(name))
    return None


async def _fetch(ctx: Context, row: Generation, url: str, target: Path) -> tuple[int, str]:
    """Write the output's bytes into `target`; return how many, and their SHA-256."""
    if name := next(iter(filing.inline_names([url])), None):
        return await _stored(ctx, name, target)
    if data_uris.is_one(url):
        return await asyncio.to_thread(_decode, url, target)
    fetched = await _download_whole(ctx, row, url, target)
    plain = None
    if fetched.encoding in ZIPPED:  # as some stores keep files, and send them to everybody
        plain = await asyncio.to_thread(unzip, target, ctx.settings.max_output_mb * 1_000_000)
    return plain or (fetched.bytes, fetched.sha256)


async def _stored(ctx: Context, name: str, target: Path) -> tuple[int, str]:
    """Write a file that came inside the provider's answer. Raises BadAnswer when it is gone."""
    try:
        return await storage.write(target, ctx.store.open(name))
    except NotFound as error:
        raise BadAnswer("The file that came with the answer is gone.", status=404) from error


async def _download_whole(ctx: Context, row: Generation, url: str, target: Path) -> Fetched:
    """Download it; twice, when it says neither a length nor chunks: a connection that broke looks like the end."""
    fetched = await _download(ctx, row, url, target)
    if not fetched.framed:
        again = await _download(ctx, row, url, target)
        if again.sha256 != fetched.sha256:
            raise CutShort("The output was not the same twice, and does not say where it ends.")
    return fetched


async def _download(ctx: Context, row: Generation, url: str, target: Path) -> Fetched:
    provider = ctx.providers.get(row.account_key)
    if provider is None:
        raise NotSent(f"{row.provider} is not offered here now")
    return await provider.fetch(url, target, cap_bytes=ctx.settings.max_output_mb * 1_000_000, total_s=FETCH_LIMIT_S)


def _decode(uri: str, target: Path) -> tuple[int, str]:
    """Write what a data URI holds. Rows have some that an older version kept, or that came while the disk was full."""
    content = data_uris.write(uri, target)
    return len(content), hashlib.sha256(content).hexdigest()


def _measure(spooled: Path, poster: Path | None) -> tuple[str, int]:
    """Return the file's type by its first bytes, and its poster's length. Raises InvalidMedia for what is no file."""
    return naming.recognise(spooled), poster.stat().st_size if poster and poster.exists() else 0


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
