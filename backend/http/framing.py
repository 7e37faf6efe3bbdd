"""Where a request begins and ends: httptools' parser, made to read every request as one.

httptools takes an offer to change the protocol (`Connection: Upgrade`) for accepted: it skips the body, which then
counts as the next request. Nothing but HTTP/1.1 is spoken here, so such an offer is ignored (RFC 9110 7.8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import httptools

Header = tuple[bytes, bytes]  # the name in lower case

_FRAMING = (b"content-length", b"transfer-encoding")
_HEAD_CALLS = ("on_message_begin", "on_url", "on_header", "on_headers_complete")


class RequestParser:
    """Reads the requests of one connection, and calls `protocol` as httptools.HttpRequestParser does."""

    get_http_version: Callable[[], str]
    get_method: Callable[[], bytes]
    should_keep_alive: Callable[[], bool]

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._listens = True
        self._start({name: getattr(protocol, name) for name in _HEAD_CALLS})

    def feed_data(self, received: bytes) -> None:
        """Read on. Raises httptools.HttpParserError for what is no request."""
        rest: bytes | memoryview = received
        while True:
            try:
                self._parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._protocol.transport.is_closing():
                    return
                rest = memoryview(rest)[upgrade.args[0] :]  # no copy: there may be many offers in what was received
                self._ignore_upgrade()

    def should_upgrade(self) -> bool:
        """Whether the connection changes its protocol: never."""
        return False

    def _start(self, head_calls: dict[str, Callable[..., None]]) -> None:
        listener = SimpleNamespace(**head_calls, on_body=self._protocol.on_body, on_message_complete=self._complete)
        self._parser = httptools.HttpRequestParser(listener)
        self._parser.set_dangerous_leniencies(
            lenient_data_after_close=True
        )  # else such data is an error before the answer
        self.get_http_version = self._parser.get_http_version
        self.get_method = self._parser.get_method
        self.should_keep_alive = self._parser.should_keep_alive

    def _complete(self) -> None:
        if not self._parser.should_upgrade():  # else the body is still to come, whatever the parser believes
            self._protocol.on_message_complete()

    def _ignore_upgrade(self) -> None:
        """Go on with a new parser, which is given a head of the same framing that offers nothing."""
        framing = [b"%s: %s\r\n" % one for one in self._protocol.headers if one[0] in _FRAMING]
        self._start({name: self._unless_deaf(getattr(self._protocol, name)) for name in _HEAD_CALLS})
        self._listens = False
        try:
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(framing))
        finally:
            self._listens = True

    def _unless_deaf(self, call: Callable[..., None]) -> Callable[..., None]:
        def hand_on(*found: bytes) -> None:
            if self._listens:
                call(*found)

        return hand_on


def find_fault(version: str, method: bytes, headers: Sequence[Header]) -> str | None:
    """What is wrong with a head that the parser let pass, as a sentence for the client."""
    if version not in ("1.1", "1.0"):
        return f"HTTP/{version} is not spoken here."
    if method == b"CONNECT":
        return "This is no proxy: CONNECT leads nowhere."
    has_host, codings = version == "1.0", []
    for name, value in headers:
        if name == b"host":
            has_host = True
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if not has_host:
        return "The request has no Host header."
    if codings and (version == "1.0" or codings != [b"chunked"]):
        return "The only transfer coding is 'chunked', in HTTP/1.1."
    return None
