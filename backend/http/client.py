"""The only way out: every HTTP request of the service, with deadlines, caps and checked addresses.

`call` talks to addresses that the operator chose, `fetch` and `send` to addresses that anybody may have written. A
request and its answer are one exchange over a connection of our own (`backend.http.exchanges`). Nothing is ever sent
twice: there is no retry, no redirect of a `call`, and no second try when a kept-alive connection proves dead. A create
that is sent twice is paid twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing, nullcontext, suppress
from pathlib import Path
from typing import Any

from backend.core.errors import BadAnswer, CutShort
from backend.core.places import Places
from backend.http import requests
from backend.http.addresses import Network
from backend.http.answers import HttpAnswer, answered, lower, read_whole
from backend.http.downloads import HEAD_S, Download, Fetched, encoding, is_framed, paced
from backend.http.exchanges import Exchange, NotHttp
from backend.http.hops import LONGEST_FETCHED, admit, checked, redirect_of, redirected
from backend.http.lines import Lines
from backend.http.names import Resolver, resolve
from backend.http.requests import Files, Headers
from backend.http.sockets import Ended, LineError

CLOSING_S = 5.0  # for what is in flight: a create that is cut off may be paid and lost


class Http:
    """The guarded client; one for the whole process, used on one event loop."""

    def __init__(self, *, allow_networks: Sequence[Network] = (), resolver: Resolver | None = None) -> None:
        """`allow_networks` are private networks that outsiders may name; `resolver` gives the addresses of a host."""
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
        """Send one request to an address that the operator chose, and return the answer, whatever its status.

        There is exactly one attempt. Raises `NotSent` when no byte of the request left, `Unanswered` when it may have
        arrived, and `AnswerTooLarge` for more than `cap_bytes`. A caller that is cancelled does not end the request.
        """
        body = {"json": json, "content": content, "files": files, "data": data}
        # A task of its own, and shielded: a create that is cancelled half-way would be paid, and its answer lost.
        task = asyncio.create_task(self._exchange(method, url, headers, body, total_s, connect_s, cap_bytes))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Headers | None,
        body: dict[str, Any],
        total_s: float,
        connect_s: float,
        cap_bytes: int,
    ) -> HttpAnswer:
        deadline = time.monotonic() + total_s
        with ExitStack() as opened:
            body["files"] = requests.open_files(body["files"], opened)
            request = requests.build(method, url, headers, **body)
            async with (
                self._lines.pooled(request.origin, deadline, connect_s) as line,
                answered(line, request, total_s) as answer,
            ):
                return HttpAnswer(answer.status, lower(answer.headers), await read_whole(answer, cap_bytes))

    async def send(
        self, url: str, *, content: bytes, headers: Headers, total_s: float = 15.0, cap_bytes: int = 64 << 10
    ) -> HttpAnswer:
        """POST to an address that somebody else chose. A redirect is an answer; a long answer is cut at `cap_bytes`.

        Raises `BlockedAddress`, `NotSent` and `Unanswered`. Once the status has come, the rest of a slow or broken
        answer is left out: the status alone says whether the webhook was taken.
        """
        request = requests.build("POST", checked(url), headers, content=content)
        deadline = time.monotonic() + total_s
        async with (
            self._lines.guarded(request.origin, deadline, is_trusted=False) as line,
            answered(line, request, total_s) as answer,
        ):
            body = bytearray()
            with suppress(LineError):
                while len(body) < cap_bytes and (piece := await answer.read()):
                    body += piece
            return HttpAnswer(answer.status, lower(answer.headers), bytes(body[:cap_bytes]))

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
        """Download an address that somebody else chose into `target`, which is removed when anything fails.

        `hosts(host, port, scheme)` must agree to every hop. The address of an origin that is `trusted` is not checked.
        `places` bounds how many talk to one host at a time. The head of each answer has `HEAD_S`. With `floor` the body
        has as long, and a second more for each `floor` bytes that came.

        Raises `BlockedAddress`, `BadAnswer` (another status than 200, too many redirects; if `strict` also an encoded
        answer or one without a length), `AnswerTooLarge`, `NotSent`, `NoPlace`, `Unanswered` (`CutShort` when a part
        came) and `StorageFull`. No message holds what the other side answered: it may be a server inside our network.
        """
        deadline = time.monotonic() + total_s
        for left in range(hops, -1, -1):
            request = requests.build("GET", checked(url, LONGEST_FETCHED), headers)
            is_trusted = admit(request.origin, hosts, trusted)
            line_of = self._lines.guarded(request.origin, deadline, is_trusted=is_trusted, head_s=HEAD_S)
            place = places.take(request.origin[1]) if places else nullcontext()
            async with place, line_of as line, answered(line, request, idle_s) as answer:
                location = redirect_of(answer) if left else None
                if location is None:
                    async with aclosing(paced(answer.read, line.stream, deadline, floor)) as chunks:
                        return await _store(answer, chunks, url, Download(target, cap_bytes), strict)
            url, headers = redirected(url, location, headers)
        raise AssertionError("the last hop returns or raises")

    async def close(self) -> None:
        """Give requests in flight CLOSING_S to end, then close every connection."""
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSING_S)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._lines.close()


async def _store(answer: Exchange, chunks: AsyncIterable[bytes], url: str, download: Download, strict: bool) -> Fetched:
    headers = lower(answer.headers)
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
