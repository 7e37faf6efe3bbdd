"""A request as it goes over the wire. One that cannot be written is `NotSent`: no byte of it has left."""

from __future__ import annotations

import functools
import json as jsonlib
import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import httpx

from backend.core.errors import NotSent

Files = Mapping[str, tuple[str, Path | IO[bytes], str]]  # field: name, content, content type
Headers = Mapping[str, str]
Origin = tuple[str, str, int]  # scheme, host, port

OWN_HEADERS = {"User-Agent": "reelhook", "Accept": "*/*", "Accept-Encoding": "identity"}
PORTS = {"http": 80, "https": 443}
# What is raised for a header, a body, a file or a URL that cannot be written.
UNWRITABLE = (httpx.InvalidURL, ValueError, TypeError, ArithmeticError, RecursionError, OSError)

# A header or a path with a line break in it would be a second request, so nothing is sent that these do not match.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")
_TARGET = re.compile(rb"[!-~]+")


@dataclass(frozen=True)
class Request:
    """What is sent: `start` in one piece, then `rest`; the `length` of the body is None when it is not known before.

    A short body is part of `start`: each write is a system call and often a packet.
    """

    method: str
    origin: Origin
    start: bytes
    rest: AsyncIterable[bytes] | None
    length: int | None


@contextmanager
def _unsent() -> Iterator[None]:
    try:
        yield
    except UNWRITABLE as error:
        raise NotSent(f"The request cannot be written ({type(error).__name__}).") from error


@_unsent()
def build(
    method: str,
    address: str,
    headers: Headers | None,
    *,
    json: Any = None,
    content: bytes | AsyncIterable[bytes] | None = None,
    files: Mapping[str, tuple[str, IO[bytes], str]] | None = None,
    data: Mapping[str, str] | None = None,
) -> Request:
    """Return the request with its headers and its body. Raises `NotSent`."""
    where = url(address)
    if files or data:
        form = httpx.Request(method, where, files=files, data=data)
        length = form.headers.get("content-length")
        kind, body = form.headers["content-type"], cast(AsyncIterable[bytes], form.stream)
        return _written(method, where, {"Content-Type": kind}, headers, body, None if length is None else int(length))
    if content is not None:
        return _written(method, where, {}, headers, content, len(content) if isinstance(content, bytes) else None)
    if json is None:
        return _written(method, where, {}, headers, b"", 0)
    text = jsonlib.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return _written(method, where, {"Content-Type": "application/json"}, headers, text, len(text))


@_unsent()
def open_files(files: Files | None, opened: ExitStack) -> dict[str, tuple[str, IO[bytes], str]] | None:
    """Open files that are given as paths: httpx reads them piece by piece while they are sent. Raises `NotSent`."""
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


async def framed(body: AsyncIterable[bytes], length: int | None) -> AsyncGenerator[bytes, None]:
    """Yield the body as it is sent; in chunks when there is no length. Raises ValueError when its length is another."""
    sent = 0
    async for piece in body:
        sent += len(piece)
        if length is not None and sent > length:
            raise ValueError("the body is longer than was said")
        if piece:
            yield piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)
    if length is None:
        yield b"0\r\n\r\n"
    elif sent != length:
        raise ValueError("the body is shorter than was said")


@functools.lru_cache(maxsize=512)
def url(text: str) -> httpx.URL:
    """Return the parsed URL. Those of the provider are few and come again and again, so each is parsed once."""
    return httpx.URL(text)


def _written(
    method: str,
    where: httpx.URL,
    kind: Headers,
    headers: Headers | None,
    body: bytes | AsyncIterable[bytes],
    length: int | None,
) -> Request:
    fields = {name.lower(): (name, value) for name, value in {**OWN_HEADERS, **kind}.items()}
    fields |= {name.lower(): (name, value) for name, value in (headers or {}).items()}
    if length is None:
        fields["transfer-encoding"] = "Transfer-Encoding", "chunked"
    elif length or method in ("POST", "PUT", "PATCH"):
        fields["content-length"] = "Content-Length", str(length)
    lines = [_line(name, value) for name, value in fields.values()]
    if not (_NAME.fullmatch(method) and _TARGET.fullmatch(where.raw_path)):
        raise ValueError("the request line cannot be written")
    first = f"{method} {where.raw_path.decode()} HTTP/1.1", f"Host: {where.netloc.decode()}"
    head = "\r\n".join((*first, *lines, "", "")).encode("ascii")
    if isinstance(body, bytes):
        return Request(method, _origin(where), head + body, None, length)
    return Request(method, _origin(where), head, body, length)


def _line(name: str, value: str) -> str:
    if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
        raise ValueError("the header cannot be written")
    return f"{name}: {value}"


def _origin(where: httpx.URL) -> Origin:
    if where.scheme not in PORTS or not where.raw_host:
        raise ValueError("there is no such address")
    return where.scheme, where.raw_host.decode(), where.port or PORTS[where.scheme]
