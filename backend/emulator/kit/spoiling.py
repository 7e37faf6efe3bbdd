"""What faults make of an output's bytes on their way to the client."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from backend.emulator.kit.connection import Raw, transport_of, until_gone
from backend.emulator.kit.fault_kinds import Arguments
from backend.emulator.kit.runs import Output


class Truncated(Response):
    """Promises the whole length, or chunks to an end, sends half and closes."""

    def __init__(self, output: Output, half: bytes, chunked: bool) -> None:
        super().__init__(half, media_type=output.content_type, headers={"content-length": str(output.size)})
        if chunked:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        transport_of(scope).close()
        await until_gone(receive)


async def other_bytes(kind: str, arguments: Arguments, output: Output) -> bytes | None:
    """Other bytes than were made, which look whole to everybody; None when the fault changes none."""
    match kind:
        case "output_garbage":
            return await _garbage(output)
        case "output_short":
            return await _read(output, output.size // 2)
        case "output_gzip" if arguments["bytes"]:
            return await asyncio.to_thread(_zipped, output, arguments["bytes"])
    return None


async def spoil(kind: str, arguments: Arguments, output: Output) -> Response:
    content_type = output.content_type
    match kind:
        case "output_404":
            return Response("Not found", arguments["status"])
        case "output_truncated":
            return Truncated(output, await _read(output, output.size // 2), arguments["chunked"])
        case "output_short":
            return Raw(_unframed(content_type, await _read(output, output.size // 2)))
        case "output_unframed":
            return Raw(_unframed(content_type, await _read(output, output.size)))
        case "output_chunked":
            return StreamingResponse(_pieces(await _read(output, output.size)), media_type=content_type)
        case "output_html":
            page = "<!doctype html><title>Error</title><h1>Something went wrong</h1>"
            return Response(page, media_type=arguments["content_type"])
        case "output_garbage":
            return Response(await _garbage(output), media_type=content_type)
        case "output_huge":
            return StreamingResponse(_endless(await _read(output, 1 << 20)), media_type=content_type)
        case "output_gzip":
            body = await asyncio.to_thread(_zipped, output, arguments["bytes"])
            return Response(body, media_type=content_type, headers={"content-encoding": "gzip"})
        case _:
            whole = await _read(output, output.size)
            headers = {"content-length": str(output.size)}
            pieces = _slowly(whole, arguments["bytes_per_s"])
            return StreamingResponse(pieces, media_type=content_type, headers=headers)


def _unframed(content_type: str, body: bytes) -> bytes:
    """An answer that ends where the connection ends: nothing in HTTP says that it is cut."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def _garbage(output: Output) -> bytes:
    return await asyncio.to_thread(random.Random(1).randbytes, output.size)  # nosec B311


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 10_000):
        yield content[start : start + 10_000]


async def _read(output: Output, count: int) -> bytes:
    return await asyncio.to_thread(_head, output, count)


def _head(output: Output, count: int) -> bytes:
    if isinstance(output.source, bytes):
        return output.source[:count]
    with output.source.open("rb") as file:
        return file.read(count)


def _zipped(output: Output, size: int) -> bytes:
    """The output, or `size` zeros: a bomb."""
    return gzip.compress(bytes(size) if size else _head(output, output.size), 6, mtime=0)


async def _endless(head: bytes) -> AsyncIterator[bytes]:
    yield head
    piece = bytes(1 << 20)
    while True:
        yield piece
        await asyncio.sleep(0)  # uvicorn's send does not wait once the client is gone


async def _slowly(content: bytes, bytes_per_s: int) -> AsyncIterator[bytes]:
    step = max(1, bytes_per_s // 10)
    for start in range(0, len(content), step):
        yield content[start : start + step]
        await asyncio.sleep(0.1)
