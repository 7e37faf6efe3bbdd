"""`reelhook mcp`: the service as tools of a language model that runs on this machine."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from backend.cli.options import DEFAULT_URL, Key, Url
from backend.core.errors import SettingsError

Campaign = Annotated[
    str | None, typer.Option(metavar="ID", help="The campaign that is meant when the model names none.")
]


def mcp(url: Url = DEFAULT_URL, key: Key = None, campaign: Campaign = None) -> None:
    """Give a language model tools to make images and videos, over standard input and output."""
    from backend import logs
    from backend.logs import output
    from backend.web.mcp import HINT, is_installed

    if not is_installed():
        raise SettingsError(HINT)
    import anyio

    from backend.web.mcp.access import Access
    from backend.web.mcp.serving import over_stdio

    output.take_over("stderr")  # many programs that start tools never read it
    logs.configure("WARNING")  # on standard error: the other stream is the protocol's
    with suppress(KeyboardInterrupt):
        anyio.run(over_stdio, Access(url, key, campaign))
