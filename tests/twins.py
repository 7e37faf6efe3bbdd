"""Requests that a proxy and a service may read differently: the body of each is a whole other request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

OFFERS = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk"),
    "a websocket": (
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: x",
        b"Sec-WebSocket-Version: 13",
    ),
    "anything": (b"Upgrade: TLS/1.0, anything/7", b"Connection: keep-alive, UPGRADE"),
    "an old header": (b"Proxy-Connection: upgrade", b"Upgrade: x"),
    "nothing": (),
}
CHUNKED = b"Transfer-Encoding: chunked"
TRAILERS = (b"X-Sum: 1", b"X-Request-Id: trailer", b"Connection: upgrade", b"Upgrade: h2c")

REFUSED_HEADERS = {
    "both": (CHUNKED, b"Content-Length: 5"),
    "both, the other way": (b"Content-Length: 5", CHUNKED),
    "two lengths": (b"Content-Length: 0", b"Content-Length: 5"),
    "a length twice": (b"Content-Length: 5", b"Content-Length: 5"),
    "a list of lengths": (b"Content-Length: 5, 5",),
    "a length with a sign": (b"Content-Length: +5",),
    "a length in hex": (b"Content-Length: 0x5",),
    "a length below zero": (b"Content-Length: -5",),
    "a length with an underscore": (b"Content-Length: 1_0",),
    "a length beyond 64 bits": (b"Content-Length: 99999999999999999999999999",),
    "no length": (b"Content-Length:",),
    "another coding": (b"Transfer-Encoding: xchunked",),
    "a coding before": (b"Transfer-Encoding: gzip, chunked",),
    "a coding after": (b"Transfer-Encoding: chunked, identity",),
    "chunked twice": (CHUNKED, CHUNKED),
    "a coding of nothing": (b"Transfer-Encoding: identity",),
    "no coding": (b"Transfer-Encoding:",),
    "a coding with a parameter": (b"Transfer-Encoding: chunked;q=0.5",),
    "a coding in quotes": (b'Transfer-Encoding: "chunked"',),
    "a folded header": (b"X-A: b", b" Content-Length: 5"),
    "a folded length": (b"Content-Length:", b" 5"),
    "a space before the colon": (b"Content-Length : 5",),
    "no colon": (b"Content-Length",),
    "a bare LF": (b"X-A: b\nContent-Length: 5",),
    "a bare CR": (b"X-A: b\rContent-Length: 5",),
    "an offer beside both": (*OFFERS["h2c"], CHUNKED, b"Content-Length: 5"),
    "an offer beside another coding": (*OFFERS["h2c"], b"Transfer-Encoding: xchunked"),
}
REFUSED_STARTS = {
    "HTTP/0.9": b"GET /healthz\r\n",
    "HTTP/0.9 by name": b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/2 from the start": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bare LFs": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "no host but an offer": b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
    "a tunnel with a length": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\nContent-Length: 9\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the headers": b"GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n",
}
BROKEN_CHUNKS = {
    "a size with a sign": b"+0\r\n\r\n",
    "a size in hex": b"0x0\r\n\r\n",
    "a size below zero": b"-1\r\n\r\n",
    "no size": b"\r\n",
    "a blank after a size": b"0 \r\n\r\n",
    "a size beyond 64 bits": b"10000000000000000\r\n\r\n",
    "an underscore in a size": b"0_0\r\n\r\n",
    "a digit of another script": "\uff10\r\n\r\n".encode(),
    "a bare LF after a size": b"0\n\r\n",
    "a bare LF in an extension": b"0;a\n\r\n",
    "a bare CR in an extension": b"0;a\rb\r\n\r\n",
    "a line break in a quoted extension": b'0;a="\r\n"\r\n\r\n',
    "a chunk too long": b"1\r\nxx\r\n0\r\n\r\n",
    "a bare LF after a chunk": b"1\r\nx\n0\r\n\r\n",
    "a length among the trailers": b"0\r\nContent-Length: 5\r\n\r\n",
    "a folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
}


@dataclass(frozen=True)
class Target:
    """Where requests are sent to, who they come from, and the request in their bodies that must never be one."""

    start: bytes
    headers: tuple[bytes, ...]
    hidden: bytes

    def ask(self, *headers: bytes, body: bytes = b"") -> bytes:
        """The first request on a connection."""
        return request(self.start, b"X-Request-Id: first", *self.headers, *headers, body=body)


def request(start: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """The bytes of one request."""
    return b"\r\n".join((start + b" HTTP/1.1", b"Host: localhost", *headers, b"", body))


def chunks(body: bytes, *trailers: bytes) -> bytes:
    """The body in two chunks, one with an extension."""
    half = len(body) // 2
    pieces = b"%x\r\n%s\r\n%x;a=b\r\n%s\r\n0\r\n" % (half, body[:half], len(body) - half, body[half:])
    return pieces + b"".join(one + b"\r\n" for one in trailers) + b"\r\n"


def staying(at: Target) -> Iterator[tuple[str, bytes]]:
    """Requests that are as they should be; another may follow."""
    sized = b"Content-Length: %d" % len(at.hidden)
    for name, offer in OFFERS.items():
        yield f"{name}, sized", at.ask(*offer, sized, body=at.hidden)
        yield f"{name}, chunked", at.ask(CHUNKED, *offer, body=chunks(at.hidden))
        yield f"{name}, with trailers", at.ask(*offer, CHUNKED, body=chunks(at.hidden, *TRAILERS))
        yield f"{name}, expecting a word", at.ask(*offer, sized, b"Expect: 100-continue", body=at.hidden)
        yield f"{name}, empty", at.ask(*offer, b"Content-Length: 0")
        yield f"{name}, without a body", at.ask(*offer)
    yield "expecting something else", at.ask(b"Expect: tea", sized, body=at.hidden)


def closing(at: Target) -> Iterator[tuple[str, bytes]]:
    """The same, and the connection is to be closed after the answer."""
    sized = b"Content-Length: %d" % len(at.hidden)
    yield "an offer and a close in one", at.ask(b"Connection: close, Upgrade", b"Upgrade: h2c", sized, body=at.hidden)
    for name, offer in OFFERS.items():
        yield f"{name}, sized", at.ask(b"Connection: close", *offer, sized, body=at.hidden)
        yield f"{name}, chunked", at.ask(*offer, CHUNKED, b"Connection: close", body=chunks(at.hidden))
        yield f"{name}, said at the end", at.ask(*offer, CHUNKED, body=chunks(at.hidden, b"Connection: close"))
        old = at.ask(*offer, sized, b"Expect: 100-continue", body=at.hidden)
        yield f"{name}, in HTTP/1.0", old.replace(b" HTTP/1.1", b" HTTP/1.0", 1)


def refused(at: Target) -> Iterator[tuple[str, bytes]]:
    """What is no request, or more than one."""
    for name, headers in REFUSED_HEADERS.items():
        yield name, at.ask(*headers, body=at.hidden)
    for name, start in REFUSED_STARTS.items():
        yield name, start + at.hidden
    for name, chunk in BROKEN_CHUNKS.items():
        yield name, at.ask(CHUNKED, body=chunk + at.hidden)
        yield f"{name}, beside an offer", at.ask(*OFFERS["h2c"], CHUNKED, body=chunk + at.hidden)
