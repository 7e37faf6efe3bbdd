"""What all parts of one running emulator share."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from backend.emulator.kit.faults import Faults
from backend.emulator.kit.ledger import Ledger
from backend.emulator.kit.options import EmulatorOptions
from backend.emulator.kit.provider import Provider
from backend.emulator.kit.runs import Runs
from backend.emulator.kit.uploads import Uploads
from backend.http import Http

log = logging.getLogger("reelhook.emulator")


@dataclass
class Emulator:
    """One emulated provider; made inside a running event loop, closed by `close`."""

    provider: Provider
    options: EmulatorOptions
    http: Http
    folder: Path
    uploads: Uploads
    faults: Faults
    runs: Runs = field(default_factory=Runs)
    ledger: Ledger = field(default_factory=Ledger)
    forgotten: int = 0  # how many runs the ledger no longer counts
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    renderers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "render"))
    closing: bool = False
    temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def api_key(self) -> str:
        return self.provider.api_key if self.options.api_token is None else self.options.api_token

    @property
    def webhook_secret(self) -> str:
        given = self.options.webhook_secret
        return self.provider.webhook_secret if given is None else given

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs beside the requests, until it ends or the emulator is closed."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._settle)
        return task

    def _settle(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("the emulator failed at its own work", exc_info=error)

    async def close(self) -> None:
        self.closing = True
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.to_thread(self.renderers.shutdown, cancel_futures=True)
        await self.http.close()
        if self.temporary:
            await asyncio.to_thread(self.temporary.cleanup)


def open_emulator(provider: Provider, options: EmulatorOptions) -> Emulator:
    """Raises SettingsError for faults that nobody knows, or that this provider cannot suffer."""
    faults = Faults(provider.name, provider.can_suffer)
    faults.replace(list(options.faults))
    temporary = None if options.folder else tempfile.TemporaryDirectory(prefix="reelhook-emulator-")
    folder = options.folder or Path(temporary.name if temporary else "")
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    (folder / "files").mkdir(exist_ok=True)
    return Emulator(provider, options, Http(), folder, Uploads(folder / "files"), faults, temporary=temporary)


def emulator_of(request: Request) -> Emulator:
    found: Emulator = request.app.state.emulator
    return found


def origin(request: Request) -> str:
    """How the client reached us; every URL it is given starts with this."""
    return f"{request.url.scheme}://{request.url.netloc}"
