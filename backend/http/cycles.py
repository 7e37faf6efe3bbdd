"""One request and its answer, as uvicorn handles them, and the answer to bytes that are no request."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Cycle(RequestResponseCycle):
    """A request and its answer. While the application waits for the body, that may turn out to be broken."""

    has_begun = False
    is_broken = False
    is_void = False
    ends_with_connection = False

    async def run_asgi(self, app: Any) -> None:
        """Let the application answer, unless the request was taken back."""
        if not self.is_void:
            self.has_begun = True
            await super().run_asgi(app)

    # The next two hand on what is awaited: a coroutine around each would cost more than all checks together.

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        """Send a piece of the answer.

        A refusal that comes before the request is whole is the last answer on its connection.
        """
        if self.more_body and message.get("status", 0) >= 400:
            self.keep_alive = False
        if self.scope["http_version"] == "1.0":
            self._leave_whole(message)
        return super().send(message)

    def _leave_whole(self, message: Any) -> None:
        """Send an answer of unknown length without chunks: HTTP/1.0 has none, and the connection's end is its end."""
        if message["type"] == "http.response.start":
            self.ends_with_connection = all(name.lower() != b"content-length" for name, _ in message["headers"])
            if self.ends_with_connection:
                self.chunked_encoding = False
        elif self.ends_with_connection:
            self.expected_content_length = len(message.get("body", b""))

    def receive(self) -> Coroutine[Any, Any, Any]:
        """Return the next piece of the body. A client whose body is broken counts as gone."""
        return _gone() if self.is_broken else super().receive()


async def _gone() -> dict[str, str]:
    return {"type": "http.disconnect"}


def write_refusal(problem: Mapping[str, object], *headers: str) -> bytes:
    """Return the bytes of an answer of 400 that ends the connection."""
    body = json.dumps(problem).encode()
    head = (
        "HTTP/1.1 400 Bad Request",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        *headers,
        "connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body
