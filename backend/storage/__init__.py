"""Where files stay: a spool on the local disk while they are written, and a store that keeps them.

Knows no generations. Nobody outside asks where the store has its bytes: `Store.local` lends a path.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from backend.core.errors import SettingsError
from backend.storage.folder import SPOOL, Folder
from backend.storage.spool import Spool, Usage, write
from backend.storage.store import Store, check_name, folder_of

__all__ = ["Spool", "Store", "Usage", "check_name", "folder_of", "open_storage", "write"]


def open_storage(url: str) -> tuple[Spool, Store]:
    """Open the spool and the store of a STORAGE_URL: `file:data/media` (below the working directory) or `file:///srv`.

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
        store = Folder(folder)
        return Spool(folder / SPOOL), store
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no folder can have this name"
        raise SettingsError(f"STORAGE_URL: nothing can be stored in {folder}: {why}") from error
