"""Load the catalog of this program: models.toml in each provider's folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from backend.core.catalog import Catalog
from backend.core.model_files import parse


@cache
def load() -> Catalog:
    """Return the catalog, which is read once. Raises SettingsError that names the file and the model."""
    return parse(files(Path(__file__).parent))


def files(folder: Path) -> dict[str, str]:
    """Return the text of models.toml in each folder below this one, by provider, which is the folder's name."""
    return {path.parent.name: path.read_text("utf-8") for path in sorted(folder.glob("*/models.toml"))}
