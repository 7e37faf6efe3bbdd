"""A whole answer, and how one is got over a connection: what the wire does wrong becomes an error of ours."""

from __future__ import annotations

import json as jsonlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from backend.core.errors import AnswerTooLarge, BadAnswer, NotSent, Unanswered
from backend.http import requests
from backend.http.exchanges import Exchange, Header
from backend.http.lines import Line
from backend.http.requests import Request
from backend.http.sockets import LineError, Stream


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer. Header names are in lower case; values of the same name are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON. Raises `BadAnswer` when it is none."""
        try:
            return jsonlib.loads(self.body)
        except (ValueError, RecursionError):
            raise BadAnswer("The answer is not valid JSON.", status=self.status) from None


@asynccontextmanager
async def answered(line: Line, request: Request, idle_s: float) -> AsyncIterator[Exchange]:
    """Send the request and give the answer with its head read; its body is read within the block.

    Failures of the wire become `NotSent` or `Unanswered`. Only an answer that was read to its end leaves the connection
    for another request: what is left of one would be taken for the next answer.
    """
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


async def read_whole(answer: Exchange, cap_bytes: int) -> bytes:
    body = bytearray()
    while piece := await answer.read():
        body += piece
        if len(body) > cap_bytes:
            raise AnswerTooLarge()
    return bytes(body)


def lower(headers: Sequence[Header]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
