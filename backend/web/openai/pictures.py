"""The picture a video starts from: a file of the form, a URL, a data URL, or an asset that is there already."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from backend.context import Context
from backend.core.errors import InvalidInput
from backend.core.people import Asset
from backend.disk import room
from backend.manage import assets
from backend.web.calls.multipart import Spooled
from backend.web.openai.asked import Reference

_DATA = re.compile(r"data:[\w.+-]{1,50}/[\w.+-]{1,100};base64,", re.ASCII)
FIELD = "input_reference"


@dataclass(frozen=True)
class Picture:
    """An asset by its id, or one that `bring` spools, given the client and the bytes there is room for.

    Until that one is stored, its id stands for it. `bytes` is its size at most, if that is known before.
    """

    asset_id: str
    bring: Callable[[str, int], Awaitable[Path]] | None = None
    bytes: int | None = None


def of(ctx: Context, reference: Reference | None, file: Spooled | None) -> Picture | None:
    """Return the picture that came with a request, if any. Raises InvalidInput when there are two."""
    if file is not None and reference is not None:
        raise InvalidInput.of(FIELD, "This field was given more than once.")
    if file is not None:
        return Picture(ctx.new_id(), lambda *_: _ready(file), file.size)
    if reference is None:
        return None
    if reference.file_id is not None:
        return Picture(reference.file_id)
    url = reference.image_url or ""
    if url.startswith("data:"):
        return Picture(ctx.new_id(), lambda *_: _decode(ctx, url), max(1, len(url.partition(",")[2]) * 3 // 4))
    # A data URL may be megabytes long; for an address that is fetched the limit of /api/v2 holds.
    if len(url) > 2048:
        raise InvalidInput.of(FIELD, "A URL has at most 2,048 characters.")
    return Picture(ctx.new_id(), lambda client_id, left: assets.fetch(ctx, client_id, url, left))


async def digest(reference: Reference | None, file: Spooled | None) -> str:
    """Return what the picture of a request is recognised by. A thread hashes it: it may be megabytes of text."""
    if file is not None:
        return file.sha256
    if reference is None or reference.image_url is None:
        return ""
    return await asyncio.to_thread(_hash, reference.image_url)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def leave(ctx: Context, asset: Asset) -> None:
    """Remove the file again: nothing came of the request. This also happens when the sender has left."""
    await asyncio.shield(assets.leave(ctx, asset))


async def _ready(file: Spooled) -> Path:
    return file.path


async def _decode(ctx: Context, url: str) -> Path:
    target = ctx.spool.new()
    await asyncio.to_thread(_write, url, target)
    return target


def _write(url: str, target: Path) -> None:
    head = _DATA.match(url)
    try:
        content = base64.b64decode(url[head.end() :], validate=True) if head else b""
    except binascii.Error:
        content = b""
    if not content:
        raise InvalidInput.of(FIELD, "This is no data URL in base64.")
    with room.needed():
        target.write_bytes(content)
