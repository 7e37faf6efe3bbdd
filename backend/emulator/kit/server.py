"""The emulator as a process of its own."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from backend.emulator.kit.connection import EmulatorProtocol
from backend.emulator.kit.faults import load
from backend.emulator.kit.options import EmulatorOptions
from backend.emulator.replicate.app import create


class Server(uvicorn.Server):
    """uvicorn for the emulator; `origin` is known once `started` is true, also with port 0."""

    def __init__(self, app: Starlette, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=EmulatorProtocol,
                ws="none",
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self.announced = False

    @property
    def origin(self) -> str:
        """`http://HOST:PORT`, with the port that was really taken."""
        port = self.servers[0].sockets[0].getsockname()[1]
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.announced and self.started:
            print(f"Replicate emulator ready at {self.origin}/v1", flush=True)


def serve(
    host: str = "127.0.0.1",
    port: int = 8900,
    faults: Path | None = None,
    *,
    options: EmulatorOptions | None = None,
) -> None:
    """Runs until told to stop; prints one line with its base URL; raises SettingsError for bad faults."""
    wanted = options or EmulatorOptions()
    if faults:
        wanted = replace(wanted, faults=load(faults))
    server = Server(create(wanted), host, port)
    server.announced = True
    with suppress(KeyboardInterrupt):
        server.run()
