"""The keys of media links: the one that signs now, and the old ones, which still open their links."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from backend.config import Settings
from backend.config.values import LEAST_KEY
from backend.core.errors import SettingsError
from backend.disk import durable


def read(settings: Settings, database: Path) -> bytes:
    """Return DATA_KEY, else the content of `data.key` beside the database. Raises SettingsError for a damaged one."""
    if settings.data_key:
        return settings.data_key.get_secret_value().encode()
    file = database.with_name("data.key")
    if not file.exists():
        _make(file)
    key = file.read_bytes().strip()
    check(key, file)
    return key


def read_old(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys of DATA_KEY_OLD. They may be short, as keys once could be: links that they signed are in use."""
    if settings.data_key_old is None:
        return ()
    text = settings.data_key_old.get_secret_value()
    parts = [part.strip() for part in text.split(",")]
    return tuple(dict.fromkeys(part.encode() for part in (*parts, text) if part))  # also one that has a comma in it


def check(key: bytes, file: Path) -> None:
    """Raise SettingsError unless the content of a key file is a whole key."""
    if len(key.strip()) < LEAST_KEY:
        raise SettingsError(f"{file} is damaged: restore it from a backup, or remove it (old media links then end)")


def of_id(keys: Sequence[bytes], id: str) -> list[bytes]:
    """Return those of the keys that have this public name."""
    return [key for key in keys if id_of(key) == id]


def id_of(key: bytes) -> str:
    """Return the public name of a key, which its links carry: 48 bits of a hash."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"reelhook data key\n" + key).digest()[:6]).decode()


def _make(file: Path) -> None:
    """Write a new key under another name, then link it: a crash leaves no half key, and of two processes one wins."""
    rough = file.with_name(f"data.key.{secrets.token_hex(4)}")
    descriptor = os.open(rough, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(32).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileExistsError):
        os.link(rough, file)
    rough.unlink()
    durable.sync(file.parent)  # a name is lost with the power as well as bytes are
