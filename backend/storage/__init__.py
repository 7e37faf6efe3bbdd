"""Where results stay: bytes under flat names, durable once `keep` has returned. Knows no generations."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from backend.core.errors import SettingsError
from backend.storage.base import Storage, StoredFile, check_name
from backend.storage.folder import Folder
from backend.storage.saving import save, spool

__all__ = ["Storage", "StoredFile", "check_name", "open_storage", "save", "spool"]


def open_storage(url: str) -> Storage:
    """The storage a STORAGE_URL names: `file:data/media` below the working directory, or `file:///srv/media`.

    Raises SettingsError.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError("STORAGE_URL is no URL") from None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
        raise SettingsError("STORAGE_URL must be file:FOLDER or file:///FOLDER; other storages are not known.")
    folder = Path(unquote(parts.path))
    try:
        return Folder(folder)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no folder can have this name"
        raise SettingsError(f"STORAGE_URL: nothing can be stored in {folder}: {why}") from error
