"""One child process of the cage, as the service sees it: it is started, asked, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.core.errors import MediaUnavailable
from backend.media.threads import in_thread

Sort = Literal["looks", "films"]

START_S = 15.0
ANSWER_BYTES = 10_000
SLOW_S = 0.5  # of processor time: who takes more stands back for the others
MOST_FILES = 500  # then it is replaced, whatever it may hold by then
MOST_MB = 120
MOST_S = 40.0  # of processor time: its limit for its whole life must not come in the middle of a good file
_CODE = (
    "import sys; sys.path[:0] = [sys.argv[1]]\n"
    "from backend.media.inside import loop; loop.main(int(sys.argv[2]), sys.argv[3])"
)
_ROOT = str(Path(__file__).parent.parent.parent)


class Died(Exception):
    """The child is gone, or its answer makes no sense."""


@dataclass(eq=False)
class Child:
    """A process that has locked itself up and waits for an order."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    holds: list[str] = field(default_factory=list)
    is_spent: bool = False  # it is not to be asked again
    _files: int = 0
    _used_s: float = 0.0  # processor time by its own last word; what it says bounds nothing
    _watching: asyncio.TimerHandle = field(init=False, repr=False)

    @classmethod
    async def start(cls, sort: Sort = "looks") -> Child:
        """Start a child for this sort of work, and wait until it is confined. Raises MediaUnavailable."""
        try:
            child = await in_thread(_spawn, sort)
        except OSError as error:
            raise MediaUnavailable(f"No process can be started: {error.strerror}.") from error
        try:
            async with asyncio.timeout(START_S):
                child.holds = list((await child._read())["holds"])
        except (Died, TimeoutError, KeyError) as error:
            child.kill()
            raise MediaUnavailable("The process that looks into files does not start.") from error
        return child

    def lives(self) -> bool:
        """Whether it can be asked."""
        return not self.is_spent and self.process.poll() is None

    async def ask(self, order: dict[str, Any], files: list[int], within_s: float) -> dict[str, Any]:
        """Return its answer about the open files. Raises Died and TimeoutError; then the child is gone."""
        self._watching = asyncio.get_running_loop().call_later(SLOW_S, self._watch, self._used_s)
        try:
            text = json.dumps(order | {"within_s": within_s}).encode()
            async with asyncio.timeout(within_s):
                try:
                    socket.send_fds(self.line, [text], files)
                except OSError as error:
                    raise Died from error
                answer = await self._read()
        except BaseException:
            self.kill()
            raise
        finally:
            self._watching.cancel()
        self._files += 1
        used_s = answer.get("used_s")
        tired = not isinstance(used_s, int | float) or used_s > MOST_S
        self._used_s = used_s if isinstance(used_s, int | float) else 0.0
        if "found" not in answer or tired or self._files >= MOST_FILES or self._resident_mb() > MOST_MB:
            self.is_spent = True  # what a refused file left behind in it spoils no other one
        return answer

    def kill(self) -> None:
        """End it now. Not while its answer is waited for."""
        self.is_spent = True
        self.process.kill()
        self.line.close()
        asyncio.get_running_loop().run_in_executor(None, self.process.wait)

    def _resident_mb(self) -> float:
        """Return the megabytes that it holds between two files; 0 where the system does not say."""
        try:
            with open(f"/proc/{self.process.pid}/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize() / 1e6
        except OSError:
            return 0

    def _cpu_s(self) -> float:
        """Return the seconds of processor time that it has had; where the system does not say, those of the clock."""
        try:
            with open(f"/proc/{self.process.pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return time.monotonic()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _watch(self, before_s: float) -> None:
        """Let the other processes go first when one file takes long.

        Processor time is measured, not the clock: on a busy machine every file takes long, and each would cost a child.
        """
        if self._cpu_s() - before_s < SLOW_S:
            self._watching = asyncio.get_running_loop().call_later(SLOW_S / 2, self._watch, before_s)
            return
        self.is_spent = True  # it cannot come forward again
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.process.pid, 19)

    async def _read(self) -> dict[str, Any]:
        loop, text = asyncio.get_running_loop(), b""
        while not text.endswith(b"\n"):
            try:
                more = await loop.sock_recv(self.line, ANSWER_BYTES)
            except OSError as error:
                raise Died from error
            if not more or len(text) > ANSWER_BYTES:
                raise Died
            text += more
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise Died from error
        if not isinstance(answer, dict):
            raise Died
        return answer


def _spawn(sort: Sort) -> Child:
    """Start the process with nothing of ours: no environment, and one end of a socket as its only descriptor."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _CODE, _ROOT, str(os.getpid()), sort],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return Child(process, ours)
