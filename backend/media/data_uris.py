"""Files written as text: `data:image/png;base64,...` (RFC 2397), as models and programs really write them."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from backend.core.errors import InvalidMedia
from backend.disk import room

_URL_SAFE = str.maketrans("-_", "+/")


def is_one(text: str) -> bool:
    """Whether this is a data URI, in small or capital letters."""
    return text[:5].lower() == "data:"


def decode(uri: str) -> bytes:
    """Return its bytes. Its base64 may have line breaks, blanks or percent signs, or lack its padding.

    Raises InvalidMedia when its base64 is none, or cut.
    """
    head, _, text = uri.strip().partition(",")
    if "base64" not in [part.strip().lower() for part in head[len("data:") :].split(";")]:
        return unquote_to_bytes(text)
    plain = "".join((unquote(text) if "%" in text else text).split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMedia("The data URI is damaged or cut short.") from None


def write(uri: str, target: Path) -> bytes:
    """Write its bytes to a path and return them. Raises InvalidMedia as `decode`, and StorageFull."""
    content = decode(uri)
    with room.needed():
        target.write_bytes(content)
    return content
