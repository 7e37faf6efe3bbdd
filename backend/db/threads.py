"""SQLite connections, each with a thread of its own: whichever is free does the next job.

A job is a whole transaction, so a transaction costs one hop to a thread and back. A hop for each statement takes three
times as long (measured), and aiosqlite's public API offers nothing else.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple[asyncio.Future[Any], Callable[[sqlite3.Connection], Any]]


class Connections:
    """Some connections to the same file behind one queue.

    A slow job delays no other one while a connection is idle. When nobody waits for a job any more,
    it is left out if it has not begun, and comes to its end if it has.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._ended: list[asyncio.Future[None]] = []

    @classmethod
    async def open(cls, connect: Callable[[], sqlite3.Connection], count: int) -> Connections:
        """Open so many connections, each in the one thread that will use it. Raises what `connect` raises."""
        loop, opened = asyncio.get_running_loop(), cls()
        opened._ended = [loop.create_future() for _ in range(count)]
        ready: list[asyncio.Future[None]] = [loop.create_future() for _ in range(count)]
        for begun, ended in zip(ready, opened._ended, strict=True):
            # A daemon: a process that ends without closing must not hang (aiosqlite's thread is none, and it hung).
            # What is committed is durable anyway.
            Thread(target=_serve, args=(connect, opened._jobs, begun, ended), name="sqlite", daemon=True).start()
        failed = [error for error in await asyncio.gather(*ready, return_exceptions=True) if error is not None]
        if failed:
            await opened.close()
            raise failed[0]
        return opened

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Do a job on the next free connection, and return its result. Raises what the job raises."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((done, job))
        return await done

    async def close(self) -> None:
        """Do the jobs that wait, then close every connection."""
        for _ in self._ended:
            self._jobs.put(None)
        await asyncio.gather(*self._ended)


def _serve(
    connect: Callable[[], sqlite3.Connection],
    jobs: SimpleQueue[_Job | None],
    begun: asyncio.Future[None],
    ended: asyncio.Future[None],
) -> None:
    """The life of one thread."""
    try:
        connection = connect()
    except BaseException as error:
        _tell(begun, None, error)
    else:
        _tell(begun, None)
        while job := jobs.get():
            _do(connection, *job)
        connection.close()
    _tell(ended, None)


def _do(connection: sqlite3.Connection, done: asyncio.Future[Any], job: Callable[[sqlite3.Connection], Any]) -> None:
    if done.cancelled():
        return
    try:
        result = job(connection)
    except BaseException as error:
        _tell(done, None, error)
    else:
        _tell(done, result)


def _tell(done: asyncio.Future[Any], result: Any, error: BaseException | None = None) -> None:
    """Settle a future of the event loop from this thread. Once that loop is closed nobody is left to be told."""
    with suppress(RuntimeError):
        done.get_loop().call_soon_threadsafe(_settle, done, result, error)


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return  # whoever waited was cancelled
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
