"""A request as it goes over the wire. What cannot be written is `NotSent`: not a byte of it has left."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import h11
import httpcore
import httpx

from backend.core.errors import NotSent
from backend.http.lines import Origin

Files = Mapping[str, tuple[str, Path | IO[bytes], str]]  # field: name, content, content type
Headers = Mapping[str, str]

OWN_HEADERS = {"user-agent": "reelhook", "accept": "*/*", "accept-encoding": "identity"}
# What is raised for a header, a body, a file or a URL that cannot be written.
UNWRITABLE = (httpx.InvalidURL, h11.ProtocolError, ValueError, TypeError, ArithmeticError, RecursionError, OSError)


@contextmanager
def _unsent() -> Iterator[None]:
    try:
        yield
    except UNWRITABLE as error:
        raise NotSent(f"The request cannot be written ({type(error).__name__}).") from error


@_unsent()
def build(method: str, address: str, headers: Headers | None, **body: Any) -> httpx.Request:
    """The request with its headers and its body. Raises `NotSent`."""
    return httpx.Request(method, url(address), headers={**OWN_HEADERS, **(headers or {})}, **body)


@_unsent()
def open_files(files: Files | None, opened: ExitStack) -> dict[str, tuple[str, IO[bytes], str]] | None:
    """Files given as paths, opened: httpx reads them piece by piece while it sends. Raises `NotSent`."""
    if not files:
        return None
    return {
        field: (
            name,
            opened.enter_context(content.open("rb")) if isinstance(content, Path) else content,
            kind,
        )
        for field, (name, content, kind) in files.items()
    }


@_unsent()
def on_the_wire(request: httpx.Request, idle_s: float) -> httpcore.Request:
    """The same for the connection below httpx. Raises `NotSent`."""
    parts = request.url
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions={"timeout": {"read": idle_s, "write": idle_s}},
    )


def origin(request: httpx.Request) -> Origin:
    """Where it goes."""
    parts = request.url
    return parts.scheme, parts.raw_host.decode(), parts.port or (443 if parts.scheme == "https" else 80)


@functools.lru_cache(maxsize=512)
def url(text: str) -> httpx.URL:
    """The URL, read once."""
    return httpx.URL(text)
