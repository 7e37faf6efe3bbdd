"""The command `reelhook`. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import sys

from backend.core.errors import ReelhookError


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed, 2 wrong usage."""
    from backend.cli.commands import app
    from backend.cli.output import say

    try:
        app(prog_name="reelhook")
    except ReelhookError as error:
        say(f"reelhook: {error.message}")
        sys.exit(1)
    except OSError as error:
        say(f"reelhook: {error.filename or 'system'}: {error.strerror or error}")
        sys.exit(1)
