"""The few threads in which files are opened, copied and hashed, and the cage's processes started."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Never shut down: a process of the cage ends with the thread that started it.
_threads = ThreadPoolExecutor(max_workers=3, thread_name_prefix="media")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run file work in its own few threads, so that it never takes those that names wait for."""
    return await asyncio.get_running_loop().run_in_executor(_threads, functools.partial(work, *args, **kwargs))
