"""Options that several commands share."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from reelhook._address import Address

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*")
DEFAULT_URL = "http://localhost:8000"


def listening(given: str) -> str:
    """Return the address to listen on without blanks. Wrong usage when it is no address and no name."""
    host = given.strip()
    with suppress(ValueError):
        return host if ip_address(host) else ""
    if not _NAME.fullmatch(host) or host.rpartition(".")[2].isdigit():
        raise typer.BadParameter("must be an address or a name of this machine, such as 127.0.0.1")
    return host


def _url(given: str) -> str:
    """Return the address without blanks, or the usual one when it is blank. Wrong usage when it can be none."""
    return _checked(given, None).url


def _key(given: str | None) -> str | None:
    """Return the key without blanks, or None. Wrong usage when no header can hold it."""
    return _checked(DEFAULT_URL, given or "").key


def _checked(url: str, key: str | None) -> Address:
    from reelhook import InvalidArgument
    from reelhook._address import address

    try:
        return address(url.strip() or DEFAULT_URL, key or "")
    except InvalidArgument as error:
        raise typer.BadParameter(str(error)) from None


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Url = Annotated[str, typer.Option(envvar="REELHOOK_URL", help="Where the service runs.", callback=_url)]
Key = Annotated[
    str | None,
    typer.Option(envvar="REELHOOK_API_KEY", show_envvar=True, help="The API key.", metavar="sk_...", callback=_key),
]
Wait = Annotated[bool, typer.Option("--wait", help="Stay until it is finished; show progress.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", file_okay=False, help="Download the finished file here (waits for it)."),
]
