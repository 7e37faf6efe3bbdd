"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(document: Any) -> None:
    """Print the one JSON document of a command with `--json`."""
    sys.stdout.write(json_text(document, indent=2) + "\n")


def json_text(document: Any, indent: int | None = None) -> str:
    """Return JSON that is safe to show: characters that a terminal would obey are written as escapes."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=str)
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def print_line(text: object) -> None:
    """Print a result on a line of its own."""
    sys.stdout.write(plain(text) + "\n")


def plain(text: object) -> str:
    """Return a text on one line, without what a terminal would obey: a server may have sent it."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def say(text: str) -> None:
    """Print a remark for the person at the terminal. It is never part of the result."""
    sys.stderr.write("\n".join(plain(line) for line in text.split("\n")) + "\n")
    sys.stderr.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table as wide as it needs: ids and URLs that are cut or folded could not be copied."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=500, soft_wrap=True, highlight=False)
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def escape(cell: object) -> str:
    """Return a cell that rich prints literally: a prompt may hold brackets and control characters."""
    from rich.markup import escape as escape_markup

    text = json.dumps(cell, ensure_ascii=False) if isinstance(cell, dict) else "" if cell is None else str(cell)
    return escape_markup(plain(text))


def size(count: int | None) -> str:
    """Return a number of bytes for people, such as 1.2 MB."""
    if count is None:
        return ""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} GB"
