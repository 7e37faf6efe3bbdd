"""Something that stands between the service and its provider and answers for it when a test wants that."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_OF_THE_BODY = ("transfer-encoding", "content-length")

Said = bytes | None
Rule = Callable[[str, str, bytes], Said]  # method, path and body; the raw answer, or None to let it pass


def answer(status: int, body: Any = None, **headers: str) -> bytes:
    """A raw answer with this body: an object as JSON, text as a page."""
    if isinstance(body, str):
        content, kind = body.encode(), "text/html"
    else:
        content, kind = (b"" if body is None else json.dumps(body).encode()), "application/problem+json"
    named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if status >= 200 and status not in (204, 304):
        named["content-length"] = str(len(content))
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Some Words\r\n{head}connection: close\r\n\r\n".encode() + content


@dataclass
class Firewall:
    """`rules` are asked in turn; what none answers goes on to the provider. `passed` and `stopped` are paths."""

    provider: str
    origin: str = ""
    rules: list[Rule] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def stop(self, part: str, *answers: Said, method: str = "POST") -> None:
        """Give these answers, the last one for good, to requests with this in their path; None lets one pass."""
        left = list(answers)

        def rule(asked: str, path: str, body: bytes) -> Said:
            if asked != method or part not in path:
                return None
            return left.pop(0) if len(left) > 1 else left[0]

        self.rules.append(rule)

    def open(self) -> None:
        """Let everything pass."""
        self.rules.clear()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        if handler.headers.get("transfer-encoding"):
            body = _chunks(handler)
        said = next(
            (said for rule in self.rules if (said := rule(handler.command, handler.path, body)) is not None), None
        )
        (self.passed if said is None else self.stopped).append(handler.path)
        handler.wfile.write(self._ask(handler, body) if said is None else said)
        handler.close_connection = True

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> bytes:
        """What the provider itself says."""
        line = http.client.HTTPConnection(self.provider.removeprefix("http://"), timeout=30)
        kept = {name: value for name, value in handler.headers.items() if name.lower() not in _OF_THE_BODY}
        line.request(handler.command, handler.path, body or None, kept)
        came = line.getresponse()
        content = came.read()
        dropped = ("content-length", "transfer-encoding", "connection")
        head = "".join(f"{name}: {value}\r\n" for name, value in came.getheaders() if name.lower() not in dropped)
        line.close()
        head += f"content-length: {len(content)}\r\nconnection: close\r\n"
        return f"HTTP/1.1 {came.status} OK\r\n{head}\r\n".encode() + content


def _chunks(handler: BaseHTTPRequestHandler) -> bytes:
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


@contextmanager
def before(provider: str) -> Iterator[Firewall]:
    """A firewall on a free port, in front of the provider at this origin."""
    wall = Firewall(provider)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            wall._handle(self)

        do_GET = do_POST

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    wall.origin = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield wall
    finally:
        server.shutdown()
        server.server_close()
