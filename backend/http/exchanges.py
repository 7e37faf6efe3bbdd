"""One request over a connection and its answer: HTTP/1.1 as a client speaks it, with httptools' parser.

The parser is strict but for two things that real servers do: lines may end without a CR, and a length beside `chunked`
does not count. What comes after the end of an answer was not asked for. It ends the connection: as the answer to the
next request it could give a create the id of another one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import httptools

from backend.http.requests import Request, framed
from backend.http.sockets import Ended, LineError, Stream

MOST_BYTES = 100 << 10  # of a head with all that comes before it, and between two pieces of a body

Header = tuple[bytes, bytes]


class NotHttp(LineError):
    """The other side sent something that is no answer in HTTP/1.1."""


class Exchange:
    """A request and its answer: `status` and `headers` once it was asked, then the body piece by piece."""

    def __init__(self, stream: Stream, idle_s: float) -> None:
        """`idle_s`: the longest wait for the next bytes, in either direction."""
        self._stream, self._idle_s = stream, idle_s
        self._found = _Found()
        self._parser = httptools.HttpResponseParser(self._found)
        self._parser.set_dangerous_leniencies(lenient_chunked_length=True, lenient_optional_cr_before_lf=True)
        self._found.read_status = self._parser.get_status_code
        self._useless_bytes = 0

    @property
    def status(self) -> int:
        return self._found.status

    @property
    def headers(self) -> list[Header]:
        """The headers in the order in which they came, without those of a trailer."""
        return self._found.headers

    @property
    def is_over(self) -> bool:
        """Whether the answer was read to its end, and the connection may be used for another request."""
        found = self._found
        return (
            found.is_whole
            and not found.has_more
            and self._parser.get_http_version() == "1.1"
            and b"close" not in found.words(b"connection")
        )

    async def ask(self, request: Request) -> None:
        """Send the request and read the head of the answer. Raises `LineError`, and what the request's body raises."""
        self._found.is_bodiless = request.method == "HEAD"
        try:
            await self._send(request)
        except Ended:
            pass  # it may have answered before it closed: a refusal of a long upload comes so
        while not self._found.has_head:
            await self._read_on()
        if self.status < 200 or self._found.words(b"transfer-encoding") not in ([], [b"chunked"]):
            raise NotHttp

    async def read(self) -> bytes:
        """Return the next piece of the body; nothing at its end. Raises `LineError`."""
        found = self._found
        while not found.pieces and not found.is_whole:
            await self._read_on()
        piece = b"".join(found.pieces)
        found.pieces.clear()
        return piece

    async def _send(self, request: Request) -> None:
        await self._stream.write(request.start, self._idle_s)
        if request.rest is not None:
            async with aclosing(framed(request.rest, request.length)) as pieces:
                async for piece in pieces:
                    await self._stream.write(piece, self._idle_s)

    async def _read_on(self) -> None:
        received, found = await self._stream.read(self._idle_s), self._found
        if not received:
            if not found.ends_with_connection():
                raise Ended
            found.is_whole = found.has_more = True
            return
        try:
            self._parser.feed_data(received)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not found.is_whole:
                raise NotHttp from error
            found.has_more = True
        self._useless_bytes = 0 if found.pieces else self._useless_bytes + len(received)
        # Heads, trailers, chunk extensions and 1xx answers can go on for ever, and none of them is a byte of the body.
        if self._useless_bytes > MOST_BYTES and not found.is_whole:
            raise NotHttp


class _Found:
    """What the parser has found of the first final answer, and whether something came behind it."""

    read_status: Callable[[], int]

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.pieces: list[bytes] = []
        self.has_head = self.is_whole = self.has_more = False
        self.is_bodiless = False

    def words(self, name: bytes) -> list[bytes]:
        """Return the list that all headers of this name make together, in lower case."""
        lines = [value for key, value in self.headers if key.lower() == name]
        return [word.strip().lower() for line in lines for word in line.split(b",")]

    def ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection says where the body ends."""
        return self.has_head and not self.words(b"content-length") and not self.words(b"transfer-encoding")

    def on_message_begin(self) -> None:
        self.has_more = self.is_whole
        if not self.is_whole:
            self.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.has_head:
            return
        self.status = self.read_status()
        self.has_head = not 100 <= self.status <= 199
        self.is_whole = self.has_head and self.is_bodiless
        if self.has_head:
            del self.read_status  # it leads to the parser, which leads here

    def on_body(self, piece: bytes) -> None:
        if self.is_whole:
            self.has_more = True
        else:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.is_whole = self.has_head
