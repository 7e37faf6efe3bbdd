"""The key that signs media links: the operator's, or a file beside the database that is made once."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from backend import durable
from backend.config import Settings
from backend.errors import SettingsError


def read(settings: Settings, database: Path) -> bytes:
    """DATA_KEY, else `data.key` beside the database. Raises SettingsError when that file is damaged."""
    if settings.data_key:
        return settings.data_key.get_secret_value().encode()
    file = database.with_name("data.key")
    if not file.exists():
        _make(file)
    key = file.read_bytes().strip()
    if len(key) < 32:
        raise SettingsError(f"{file} is damaged: restore it from a backup, or remove it (old media links then end)")
    return key


def _make(file: Path) -> None:
    """Written whole under another name, then linked: a crash leaves no half key, a race leaves one of two."""
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
