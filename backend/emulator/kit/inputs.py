"""Referenced images are really fetched: from a URL, a data URI, or a file that was uploaded before."""

from __future__ import annotations

import asyncio
import base64
import binascii
from io import BytesIO
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from PIL import Image

from backend.core.errors import NetworkError, ReelhookError
from backend.emulator.kit.render.pictures import open_picture
from backend.emulator.kit.runs import Run
from backend.emulator.kit.state import Emulator

MAX_BYTES = 64 << 20
_REDIRECTS = (301, 302, 303, 307, 308)


class UnusableInput(ReelhookError):
    """An input image cannot be read; the message becomes the prediction's error."""


async def pictures(emulator: Emulator, run: Run) -> dict[str, Image.Image]:
    """Every referenced picture by its name."""
    found: dict[str, Image.Image] = {}
    decode = emulator.options.render == "full"
    for name, url in run.work.references.items():
        content = await _content(emulator, run, name, url)
        try:
            found[name] = await asyncio.to_thread(open_picture, BytesIO(content), decode=decode)
        except ValueError as wrong:
            raise UnusableInput(f"{name}: {wrong}") from wrong
    return found


async def _content(emulator: Emulator, run: Run, field: str, url: str) -> bytes:
    if url.startswith("data:"):
        return _from_data_uri(field, url)
    own = await _own(emulator, url, run.origin)
    return await _fetch(emulator, field, url) if own is None else own


def _from_data_uri(field: str, url: str) -> bytes:
    head, comma, body = url.partition(",")
    try:
        content = unquote_to_bytes(body)
        if head.endswith(";base64"):
            content = base64.b64decode(content, validate=True)
    except binascii.Error as wrong:
        raise UnusableInput(f"{field}: the data URI is not valid base64") from wrong
    if not comma or not content:
        raise UnusableInput(f"{field}: the data URI is empty")
    return content


async def _own(emulator: Emulator, url: str, origin: str) -> bytes | None:
    """An upload or an output of this emulator; neither needs a key from inside."""
    upload = emulator.uploads.find(emulator.provider.upload_id(url, origin) or "")
    if upload:
        return await asyncio.to_thread(upload.path.read_bytes)
    match urlsplit(url).path.strip("/").split("/"):
        case ["output", id, name] if urlsplit(url).netloc == urlsplit(origin).netloc:
            run = emulator.runs.by_id.get(id)
            file = run.file(name) if run else None
            return await asyncio.to_thread(file.read) if file else None
    return None


async def _fetch(emulator: Emulator, field: str, url: str, hops: int = 3) -> bytes:
    try:
        answer = await emulator.http.call("GET", url, total_s=30, cap_bytes=MAX_BYTES)
    except NetworkError as wrong:
        raise UnusableInput(f"{field}: cannot fetch {url:.200}: {wrong.message}") from wrong
    location = answer.headers.get("location")
    if answer.status in _REDIRECTS and location and hops:
        return await _fetch(emulator, field, urljoin(url, location), hops - 1)
    if answer.status != 200:
        raise UnusableInput(f"{field}: cannot fetch {url:.200}: HTTP {answer.status}")
    return answer.body
