"""A small HTTP/1.1 load client on bare asyncio streams: cheap enough to share two cores with what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Result:
    """How many answers of each status came, how long it took, and how long each took."""

    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, share: float) -> float:
        """The latency that this share of answers was not above, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000


def request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def post(path: str, key: str, body: Any) -> bytes:
    """A POST of JSON with a key."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return request("POST", path, headers, json.dumps(body).encode())


async def run(
    port: int, make: Callable[[int], bytes], count: int, connections: int, *, keep: bool = False, pace_s: float = 0
) -> Result:
    """Send `count` requests over that many connections, each waiting for its answer."""
    result, numbers = Result(), iter(range(count))

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            began = time.perf_counter()
            writer.write(make(number))
            status, body = await _answer(reader)
            result.latencies_s.append(time.perf_counter() - began)
            result.statuses[status] = result.statuses.get(status, 0) + 1
            if keep:
                result.bodies.append(body)
            if pace_s:
                await asyncio.sleep(pace_s)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*[one() for _ in range(connections)])
    result.seconds = time.perf_counter() - began
    return result


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    at = head.lower().find(b"content-length:")
    length = int(head[at + 15 : head.find(b"\r\n", at)]) if at >= 0 else 0
    return int(head[9:12]), await reader.readexactly(length) if length else b""
