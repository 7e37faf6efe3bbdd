"""Referenced images are really fetched: from a URL, a data URI, or a file that was uploaded before."""

from __future__ import annotations

import asyncio
import base64
import binascii
from io import BytesIO
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from PIL import Image

from backend.core.errors import NetworkError, ReelhookError
from backend.emulator.kit.predictions import Prediction
from backend.emulator.kit.render.pictures import open_picture
from backend.emulator.kit.state import Emulator

MAX_BYTES = 64 << 20
_REDIRECTS = (301, 302, 303, 307, 308)


class UnusableInput(ReelhookError):
    """An input image cannot be read; the message becomes the prediction's error."""


async def pictures(emulator: Emulator, prediction: Prediction) -> dict[str, Image.Image]:
    """Every image the input refers to by its field; lists as `image_input`, `image_input.1`, ..."""
    found: dict[str, Image.Image] = {}
    for field, url in _references(prediction).items():
        content = await _content(emulator, prediction, field, url)
        decode = emulator.options.render == "full"
        try:
            found[field] = await asyncio.to_thread(open_picture, BytesIO(content), decode=decode)
        except ValueError as wrong:
            raise UnusableInput(f"{field}: {wrong}") from wrong
    return found


def _references(prediction: Prediction) -> dict[str, str]:
    references: dict[str, str] = {}
    for name in ("image_input", "start_image", "end_image"):
        value = prediction.input.get(name) or []
        for number, url in enumerate([value] if isinstance(value, str) else value):
            references[f"{name}.{number}" if number else name] = url
    return references


async def _content(emulator: Emulator, prediction: Prediction, field: str, url: str) -> bytes:
    if url.startswith("data:"):
        return _from_data_uri(field, url)
    if urlsplit(url).netloc == urlsplit(prediction.origin).netloc:
        own = await _own(emulator, urlsplit(url).path)
        if own is not None:
            return own
    return await _fetch(emulator, field, url)


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


async def _own(emulator: Emulator, path: str) -> bytes | None:
    """An upload or an output of this emulator; neither needs a token from inside."""
    match path.strip("/").split("/"):
        case ["v1", "files", id, *_] if file := emulator.files.find(id):
            return await asyncio.to_thread(file.path.read_bytes)
        case ["output", id, _] if (made := emulator.predictions.by_id.get(id)) and made.file:
            source = made.file.source
            return source if isinstance(source, bytes) else await asyncio.to_thread(source.read_bytes)
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
