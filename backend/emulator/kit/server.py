"""An emulator as a process."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from backend.emulator.kit.app import create
from backend.emulator.kit.connection import EmulatorProtocol
from backend.emulator.kit.faults import load
from backend.emulator.kit.options import EmulatorOptions
from backend.emulator.kit.provider import Provider


class Server(uvicorn.Server):
    """uvicorn for an emulator; `origin` is known once `started` is true, also with port 0."""

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
        app.state.server = self
        self.announcement = ""
        self._port: int | None = None

    @property
    def port(self) -> int:
        """The port that was really taken; it stays known while nobody listens at it."""
        if self._port is None:
            self._port = int(self.servers[0].sockets[0].getsockname()[1])
        return self._port

    @property
    def origin(self) -> str:
        """`http://HOST:PORT`."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self.port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.announcement and self.started:
            print(self.announcement.format(origin=self.origin), flush=True)

    async def refuse_connections(self, seconds: float) -> None:
        """Closes the port and what is connected without a request, and listens again after some seconds."""
        port = self.port
        if not any(server.sockets for server in self.servers):
            return  # somebody else closed it, and will open it
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(seconds)
        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(self._connection, self.config.host, port)]

    def _connection(self) -> asyncio.Protocol:
        return EmulatorProtocol(self.config, self.server_state, self.lifespan.state)


def serve(
    provider: Provider, host: str, port: int, faults: Path | None = None, options: EmulatorOptions | None = None
) -> None:
    """Runs until told to stop; prints one line with its base URL; raises SettingsError for bad faults."""
    wanted = options or EmulatorOptions()
    if faults:
        wanted = replace(wanted, faults=load(faults))
    server = Server(create(provider, wanted), host, port)
    server.announcement = f"{provider.name} emulator ready at {{origin}}{provider.base}"
    with suppress(KeyboardInterrupt):
        server.run()
