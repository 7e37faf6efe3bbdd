"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_URL = "http://localhost:8000"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Url = Annotated[str, typer.Option(envvar="REELHOOK_URL", help="Where the service runs.")]
Key = Annotated[
    str | None,
    typer.Option(envvar="REELHOOK_API_KEY", show_envvar=True, help="The API key.", metavar="sk_..."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Stay until it is finished; show progress.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", file_okay=False, help="Download the finished file here (waits for it)."),
]
