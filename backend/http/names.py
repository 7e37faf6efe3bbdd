"""Host names and their addresses: each lookup has a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MOST_LOOKUPS = 1000  # names asked for at once, most of them of those who wait for a name server that is silent

_lookups = threading.BoundedSemaphore(MOST_LOOKUPS)


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host in the order of the system's resolver. Raises OSError.

    An address is its own answer. Old spellings, such as 127.1 or 0x7f000001, go through the resolver like names: what
    they mean is checked like any other address.
    """
    try:
        return [str(ip_address(host))]
    except ValueError:
        found = await _look_up(host, port)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _look_up(host: str, port: int) -> list[Any]:
    """Look a name up in a thread of its own, which ends when the resolver gives up, half a minute after we did.

    The event loop has only a few threads for everybody: four names whose name servers are silent would take all of
    them, and nobody else's name would be found.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def tell(write: Callable[[Any], None], outcome: Any) -> None:
        if not found.done():
            write(outcome)

    def look() -> None:
        try:
            outcome: tuple[Any, Any] = (found.set_result, socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError, ArithmeticError) as error:
            outcome = (found.set_exception, error)
        finally:
            _lookups.release()
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, *outcome)

    if not _lookups.acquire(blocking=False):
        raise OSError("too many names are being looked up")
    try:
        threading.Thread(target=look, name="name", daemon=True).start()  # a stop does not wait for it
    except RuntimeError as error:  # the system gives no more threads
        _lookups.release()
        raise OSError(str(error)) from error
    return await found
