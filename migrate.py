"""Bring the database in DATABASE_URL to the current schema: python migrate.py [--check].

Needs nothing but the standard library; the service does the same at every start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from backend.db.migrate import MigrationError, check, migrate


def database_file() -> Path:
    """Return the SQLite file of DATABASE_URL, from the environment or `.env`. Raises MigrationError for another URL."""
    lines = (line.strip() for line in env_file(Path(".env")).splitlines())
    pairs = (line.removeprefix("export ").partition("=") for line in lines if "=" in line)
    file = {name.strip(): value.strip().strip("'\"").strip() for name, _, value in pairs}
    url = os.environ.get("DATABASE_URL", "").strip() or file.get("DATABASE_URL") or "sqlite:///data/reelhook.db"
    if not url.startswith("sqlite:///"):
        raise MigrationError(f"DATABASE_URL: {url.split(':')[0][:20]}: is not supported here")
    path = url.removeprefix("sqlite:///")
    if not path.isprintable() or set(path) & {"?", "#"} or path.rpartition("/")[2] in ("", ".", "..", ":memory:"):
        raise MigrationError("DATABASE_URL: must be sqlite:///file, without a query or a fragment")
    return Path(path)


def env_file(path: Path) -> str:
    """Return the text of the file, or an empty one without a file. Raises MigrationError for what is no text.

    It is read here without a library: this script must run before anything is installed.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise MigrationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MigrationError(f"{path} is not text in UTF-8: save it as UTF-8") from None
    if "\0" in text:
        raise MigrationError(f"{path} is not text in UTF-8: save it as UTF-8")
    return text


def main(arguments: list[str]) -> int:
    """Return 0 when the schema is current or was made so, 1 when it is not, and 2 for wrong usage."""
    if arguments not in ([], ["--check"]):
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    try:
        report = check(database_file()) if arguments else migrate(database_file(), actor="cli")
    except MigrationError as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    done = "would run" if arguments else "ran"
    print(f"schema version {report.after}: " + (f"{done} {', '.join(report.ran)}" if report.ran else "current"))
    return 1 if arguments and report.ran else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
