"""The options that both clients give to httpx, and what its errors mean here."""

from __future__ import annotations

import importlib.metadata
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

import httpx

from reelhook import _calls, _files
from reelhook._address import Address
from reelhook._calls import Call
from reelhook.errors import BadAnswer, InvalidArgument, Unanswered, Unreachable

CONNECT_S = 10.0
UPLOAD_S = 600.0  # a large asset is decoded before it is answered


def options(timeout: float) -> dict[str, Any]:
    """Return options for both clients of httpx: no proxy from the environment, and no bound on event streams."""
    return {
        "trust_env": False,
        "verify": _trust(),
        "timeout": timeouts(timeout),
        # Each event stream holds a connection, so their number has no bound.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=20),
        # Identity: lengths, ranges and the SHA-256 are those of the stored bytes.
        "headers": {"User-Agent": f"reelhook-python/{_version()}", "Accept-Encoding": "identity"},
    }


@cache
def _trust() -> ssl.SSLContext:
    """Return the TLS context of all clients in this program: to make one takes longer than a call."""
    return httpx.create_ssl_context(trust_env=False)


def timeouts(read_s: float, within_s: float = float("inf")) -> httpx.Timeout:
    """Return the seconds for one read or write, and for a connection; at most `within_s`."""
    read_s = max(0.01, min(read_s, within_s))
    return httpx.Timeout(read_s, connect=min(CONNECT_S, read_s))


def request(address: Address, call: Call[Any], file: BinaryIO | None) -> dict[str, Any]:
    """Return the arguments of a request for this call. The bytes of a file are read while they are sent."""
    url = address.url + call.path
    headers = address.headers_for(url) | dict(call.headers)
    parts: dict[str, Any] = {"method": call.method, "url": url, "params": dict(call.query) or None, "headers": headers}
    if file is not None and call.file is not None:
        parts["files"] = {"file": (call.file.name, file, "application/octet-stream")}
    elif call.body is not None:
        headers["Content-Type"] = "application/json"
        parts["content"] = _json(call.body)
    return parts


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidArgument(f"what is asked for is no JSON: {error}") from None


@contextmanager
def mapped(url: str) -> Iterator[None]:
    """Turn httpx's errors into ours: Unreachable when nothing left, Unanswered when the request may have arrived."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise Unreachable(f"no service answers at {_shown(url)}: {error}".rstrip(": ")) from error
    except (httpx.TransportError, httpx.StreamError) as error:
        raise Unanswered(f"the service at {_shown(url)} gave no complete answer") from error
    except (httpx.InvalidURL, httpx.HTTPError) as error:
        raise BadAnswer(f"{_shown(url)} cannot be asked") from error


def redirected(response: httpx.Response, hops: int) -> str | None:
    """Return where a redirect leads; None for another answer. Raises BadAnswer when it leads nowhere."""
    if response.status_code not in _files.REDIRECTS:
        return None
    try:
        target: str = urljoin(str(response.url), response.headers.get("location", ""))
        leads_somewhere = urlsplit(target).scheme in ("http", "https")
    except ValueError:
        leads_somewhere = False
    if hops >= _files.MOST_HOPS or not leads_somewhere:
        raise BadAnswer("the file's address leads in circles or nowhere")
    return target


def refuse(response: httpx.Response, content: bytes) -> None:
    """Raise the error for a status of 400 and above."""
    if response.status_code >= 400:
        asked = response.request
        read: Call[None] = Call(asked.method, urlsplit(str(asked.url)).path, lambda raw: None)
        _calls.answer(read, response.status_code, response.headers, content)


def file_headers(address: Address, url: str, more: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for a file. The key goes to the service alone, never to the store that it redirects to."""
    return address.headers_for(url) | dict(more)


def _shown(url: str) -> str:
    """Return the address alone: a query may hold a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _version() -> str:
    try:
        return importlib.metadata.version("reelhook")
    except importlib.metadata.PackageNotFoundError:  # a copy of the source
        return "0"
