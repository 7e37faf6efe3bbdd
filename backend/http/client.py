"""The only way out: every HTTP request of the service, with deadlines, caps and checked addresses.

`call` talks to addresses the operator chose; `fetch` and `send` to addresses anybody may have written.
A request and its answer are one exchange over a connection of our own (`backend.http.exchanges`). Nothing is ever
sent twice: no retry, no redirect of a `call`, no second try when a kept-alive connection proves dead.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from backend.core.errors import AnswerTooLarge, BadAnswer, BlockedAddress, CutShort, NotSent, Unanswered
from backend.core.places import Places
from backend.http import requests
from backend.http.addresses import MAX_URL_LENGTH, Network, check_url
from backend.http.downloads import HEAD_S, Download, Fetched, encoding, is_framed, paced
from backend.http.exchanges import Exchange, Header, NotHttp
from backend.http.lines import Line, Lines
from backend.http.requests import Files, Headers, Origin, Request
from backend.http.sockets import Ended, LineError, Resolver, Stream, resolve

CLOSING_S = 5.0
LONGEST_FETCHED = 8000  # a signed URL holds its whole permission; servers take no more than this
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; `BadAnswer` when it is none."""
        try:
            return jsonlib.loads(self.body)
        except (ValueError, RecursionError):
            raise BadAnswer("The answer is not valid JSON.", status=self.status) from None


class Http:
    """The guarded client; one for the whole process, used on one event loop."""

    def __init__(self, *, allow_networks: Sequence[Network] = (), resolver: Resolver | None = None) -> None:
        """`allow_networks`: private networks outsiders may name; `resolver`: host, port -> addresses."""
        self._lines = Lines(allow_networks, resolver or resolve)
        self._running: set[asyncio.Task[HttpAnswer]] = set()

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Headers | None = None,
        json: Any = None,
        content: bytes | AsyncIterable[bytes] | None = None,
        files: Files | None = None,
        data: Mapping[str, str] | None = None,
        total_s: float = 60.0,
        connect_s: float = 5.0,
        cap_bytes: int = 10 << 20,
    ) -> HttpAnswer:
        """Send one request to an address the operator chose and read the answer, whatever its status.

        Exactly one attempt. `NotSent`: no byte of the request left. `Unanswered`: it may have arrived.
        `AnswerTooLarge`: more than `cap_bytes`. When the caller is cancelled, the request runs to its end.
        """
        deadline = time.monotonic() + total_s

        async def exchange() -> HttpAnswer:
            with ExitStack() as opened:
                body = {"json": json, "content": content, "files": requests.open_files(files, opened), "data": data}
                request = requests.build(method, url, headers, **body)
                async with (
                    self._lines.pooled(request.origin, deadline, connect_s) as line,
                    _answered(line, request, total_s) as answer,
                ):
                    return HttpAnswer(answer.status, _lower(answer.headers), await _read(answer, cap_bytes))

        task = asyncio.create_task(exchange())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def send(
        self, url: str, *, content: bytes, headers: Headers, total_s: float = 15.0, cap_bytes: int = 64 << 10
    ) -> HttpAnswer:
        """POST to an address somebody else chose; redirects are answers, a long answer is cut at `cap_bytes`.

        Raises `BlockedAddress`, `NotSent` and `Unanswered`. Once the status has come, the rest of a slow or
        broken answer is left out.
        """
        request = requests.build("POST", _checked(url), headers, content=content)
        deadline = time.monotonic() + total_s
        async with (
            self._lines.guarded(request.origin, deadline, is_trusted=False) as line,
            _answered(line, request, total_s) as answer,
        ):
            body = bytearray()
            with suppress(LineError):
                while len(body) < cap_bytes and (piece := await answer.read()):
                    body += piece
            return HttpAnswer(answer.status, _lower(answer.headers), bytes(body[:cap_bytes]))

    async def fetch(
        self,
        url: str,
        target: Path,
        *,
        cap_bytes: int,
        total_s: float,
        idle_s: float = 30.0,
        hosts: Callable[[str, int, str], bool] | None = None,
        trusted: Callable[[str, str, int], bool] | None = None,
        headers: Headers | None = None,
        hops: int = 0,
        strict: bool = True,
        places: Places | None = None,
        floor: int | None = None,
    ) -> Fetched:
        """Download an address somebody else chose into `target`, which is removed when anything fails.

        `hosts(host, port, scheme)` must agree to every hop; an origin that is `trusted(scheme, host, port)`
        is reached without a check of its address. `places` bounds how many talk to one host at a time. The head of each
        answer has `HEAD_S`; with `floor` the body has that too, and a second more for each so many bytes.

        Raises `BlockedAddress`, `BadAnswer` (any status but 200, more than `hops` redirects; if `strict` also an
        encoded answer, and one that does not say where it ends), `AnswerTooLarge`, `NotSent`, `NoPlace`,
        `Unanswered` (`CutShort` when a part came) and `StorageFull`. No message holds what the other side answered.
        """
        deadline = time.monotonic() + total_s
        for left in range(hops, -1, -1):
            request = requests.build("GET", _checked(url, LONGEST_FETCHED), headers)
            is_trusted = _admit(request.origin, hosts, trusted)
            async with (
                places.take(request.origin[1]) if places else nullcontext(),
                self._lines.guarded(request.origin, deadline, is_trusted=is_trusted, head_s=HEAD_S) as line,
                _answered(line, request, idle_s) as answer,
            ):
                location = _lower(answer.headers).get("location")
                if not (left and location and answer.status in REDIRECTS):
                    async with aclosing(paced(answer.read, line.stream, deadline, floor)) as chunks:
                        return await _store(answer, chunks, url, Download(target, cap_bytes), strict)
            url, headers = _redirected(url, location, headers)
        raise AssertionError("the last hop returns or raises")

    async def close(self) -> None:
        """Give what is in flight a few seconds to end, then close every connection."""
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSING_S)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._lines.close()


def _checked(url: str, longest: int = MAX_URL_LENGTH) -> str:
    check_url(url, longest)
    return url


def _admit(
    origin: Origin,
    hosts: Callable[[str, int, str], bool] | None,
    trusted: Callable[[str, str, int], bool] | None,
) -> bool:
    """Whether the origin is trusted; `BlockedAddress` when its host is not expected."""
    scheme, host, port = origin
    if hosts and not hosts(host, port, scheme):
        raise BlockedAddress("This host is not one that is expected.")
    return bool(trusted and trusted(scheme, host, port))


@asynccontextmanager
async def _answered(line: Line, request: Request, idle_s: float) -> AsyncIterator[Exchange]:
    """The head of the answer, its body to be read inside; failures of the wire become ours."""
    exchange = Exchange(line.stream, idle_s)
    with _mapped(line.stream, LineError):
        with _mapped(line.stream, *requests.UNWRITABLE):
            await exchange.ask(request)
        yield exchange
        if exchange.is_over:
            line.keep()


@contextmanager
def _mapped(stream: Stream, *failures: type[Exception]) -> Iterator[None]:
    try:
        yield
    except failures as error:
        kind = type(error).__name__
        if stream.sent:
            raise Unanswered(f"The request left and no complete answer came ({kind}).") from error
        raise NotSent(f"The request could not be sent ({kind}).") from error


async def _read(answer: Exchange, cap_bytes: int) -> bytes:
    body = bytearray()
    while piece := await answer.read():
        body += piece
        if len(body) > cap_bytes:
            raise AnswerTooLarge()
    return bytes(body)


async def _store(answer: Exchange, chunks: AsyncIterable[bytes], url: str, download: Download, strict: bool) -> Fetched:
    headers = _lower(answer.headers)
    if answer.status != 200:
        raise BadAnswer(f"The other side answered with status {answer.status}.", status=answer.status)
    if strict and encoding(headers):
        raise BadAnswer("The answer is encoded.", status=200)
    if strict and not is_framed(headers):
        raise BadAnswer("The answer does not say where it ends.", status=200)
    try:
        return await download.take(chunks, headers, url)
    except (NotHttp, Ended) as error:
        raise CutShort from error


def _redirected(url: str, location: str, headers: Headers | None) -> tuple[str, Headers | None]:
    """Where a redirect leads; what the caller sent along stays with the origin it was meant for."""
    try:
        joined = urljoin(url, location)
    except ValueError:
        raise BlockedAddress("The URL is not valid.") from None
    old, new = requests.url(url), requests.url(_checked(joined, LONGEST_FETCHED))
    if old.scheme == "https" and new.scheme != "https":
        raise BlockedAddress("A redirect leads away from https.")
    is_same = (old.scheme, old.host, old.port) == (new.scheme, new.host, new.port)
    return str(new), headers if is_same else None


def _lower(headers: Sequence[Header]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
