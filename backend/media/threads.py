"""The few threads in which files are opened, copied and hashed, and the processes of the cage are started.

A service starts all its threads at once. Later the system may give no more, and work that was handed over would fail:
uploads were answered 500 although the work may have been done.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from backend.core.errors import SettingsError

P = ParamSpec("P")
T = TypeVar("T")

MEDIA = 3
OTHERS = min(32, (os.cpu_count() or 1) + 4)  # as asyncio has them
START_S = 30.0

# Never shut down: a process of the cage ends with the thread that started it.
_threads = ThreadPoolExecutor(MEDIA, thread_name_prefix="media")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run file work in its own few threads, so that it never takes those in which host names are looked up."""
    return await asyncio.get_running_loop().run_in_executor(_threads, functools.partial(work, *args, **kwargs))


def start() -> None:
    """Start these threads and those of the running loop. Raises SettingsError."""
    pool = ThreadPoolExecutor(OTHERS, thread_name_prefix="asyncio")
    fill(pool, OTHERS)
    fill(_threads, MEDIA)
    asyncio.get_running_loop().set_default_executor(pool)  # now: the end of the loop takes a thread more to end it


def fill(pool: ThreadPoolExecutor, count: int) -> None:
    """Start all `count` threads of a pool. Raises SettingsError."""
    together = threading.Barrier(count + 1, timeout=START_S)
    try:
        for _ in range(count):
            pool.submit(together.wait)
        together.wait()
    except RuntimeError as error:  # the barrier's is one too
        together.abort()
        raise SettingsError("The system gives this process too few threads: raise its limit, `ulimit -u`.") from error
