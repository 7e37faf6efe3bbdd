"""The service as a real process that can be killed, stopped and started again on the same port and database."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import commands
import trails
from auditor import audit
from emulating import Provider, until
from face import Face

from backend.cli.processes import COMMAND, environment, free_port

READY = "reelhook is ready at"


@dataclass
class Gateway(Face):
    """`reelhook serve` in a folder of its own.

    `forked`: its process is forked from one that has imported the product, for tests to which the start is nothing.
    """

    folder: Path = Path()
    settings: dict[str, str] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    forked: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.process: subprocess.Popen[bytes] | commands.Process | None = None

    def spawn(self, under: Sequence[str] = ()) -> subprocess.Popen[bytes] | commands.Process:
        """Start a process, perhaps `under` another command, and do not wait until it is ready."""
        trails.leave(Path(self.settings["DATABASE_URL"].removeprefix("sqlite:///")), self.log, self._has_ended)
        arguments = ["serve", "--port", self.origin.rpartition(":")[2]]
        with self._log.open("ab") as log:
            if self.forked and not under:
                given = environment(self.settings)
                return commands.spawn(*arguments, environment=given, stdout=log, folder=self.folder)
            return subprocess.Popen(
                [*under, *COMMAND, *arguments],
                cwd=self.folder,
                env=environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self, under: Sequence[str] = ()) -> None:
        """Start it and wait for its ready line."""
        before = self.log().count(READY)
        self.process = process = self.spawn(under)
        until(lambda: self.log().count(READY) > before or process.poll() is not None, 30)
        assert process.poll() is None, self.log()[-3000:]

    def kill(self) -> None:
        """As a power cut: no signal that could be caught."""
        self.abandon()
        self.http.close()
        self.http = type(self.http)(base_url=self.origin, timeout=30, trust_env=False)

    def abandon(self) -> None:
        """Kill its whole process group: what it runs under too."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self, within_s: float = 20.0) -> int:
        """Ask it to end; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def _has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    @property
    def _log(self) -> Path:
        return self.folder / "service.log"


def new_gateway(folder: Path, provider: Provider, *, forked: bool = False, **more: str) -> Gateway:
    """A service over a folder that is not started yet."""
    origin = f"http://127.0.0.1:{free_port()}"
    settings = {
        "DATABASE_URL": f"sqlite:///{folder}/reelhook.db",
        "STORAGE_URL": f"file:{folder}/media",
        "BASE_URL": origin,
        "AUTH_MODE": "dev",
        "REPLICATE_API_TOKEN": "r8_emulator",
        "REPLICATE_BASE_URL": f"{provider.server.origin}/v1",
        "IMAGE_RATE_LIMIT": "100000/minute",
        "VIDEO_RATE_LIMIT": "100000/minute",
        "WRITE_RATE_LIMIT": "100000/minute",
        "MIN_FREE_MB": "0",
    }
    return Gateway(origin, folder=folder, settings=settings | more, forked=forked)


@contextmanager
def gateway(folder: Path, provider: Provider, *, forked: bool = False, **more: str) -> Iterator[Gateway]:
    """A running service with a campaign; stopped and audited when the story is over."""
    service = new_gateway(folder, provider, forked=forked, **more)
    try:
        service.start()
        service.begin()
        yield service
        if service.process and service.process.poll() is None:
            assert service.stop() == 0, service.log()[-3000:]
        audit(folder, provider.ledger, service.accepted)
        assert '"event": "row_failed"' not in service.log(), service.log()[-5000:]
    finally:
        service.abandon()
        service.close()
