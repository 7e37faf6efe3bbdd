"""Bring the database in DATABASE_URL to the current schema: python migrate.py [--check].

Needs nothing but the standard library; the service does the same at every start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from backend.migrate import MigrationError, check, migrate


def database_file() -> Path:
    """The SQLite file of DATABASE_URL, from the environment or `.env`."""
    settings = dict(os.environ)
    if Path(".env").exists():
        lines = (line.strip() for line in Path(".env").read_text("utf-8").splitlines())
        pairs = (line.removeprefix("export ").partition("=") for line in lines if "=" in line)
        settings = {name.strip(): value.strip().strip("'\"") for name, _, value in pairs} | settings
    url = settings.get("DATABASE_URL") or "sqlite:///data/reelhook.db"
    if not url.startswith("sqlite:///"):
        raise MigrationError(f"DATABASE_URL: {url.split(':')[0]}: is not supported here")
    return Path(url.removeprefix("sqlite:///").split("?")[0])


def main(arguments: list[str]) -> int:
    """0: the schema is current (or was made so); 1: it is not; 2: wrong usage."""
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
