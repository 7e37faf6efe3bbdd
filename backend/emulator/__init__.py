"""Providers' wire protocols, locally, with real PNG, JPEG and MP4: for demos, developers and tests.

kit         what every emulated provider is built from
replicate   Replicate's routes, its predictions and its words

`docs/emulator.md` says how to add another one.
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette

from backend.emulator.kit import app, server
from backend.emulator.kit.options import EmulatorOptions
from backend.emulator.kit.provider import Provider
from backend.emulator.kit.server import Server
from backend.emulator.replicate import REPLICATE, WEBHOOK_SECRET

__all__ = ["PROVIDERS", "WEBHOOK_SECRET", "EmulatorOptions", "Server", "create", "serve"]

PROVIDERS: dict[str, Provider] = {"replicate": REPLICATE}


def create(options: EmulatorOptions | None = None, provider: str = "replicate") -> Starlette:
    """The emulated provider as an application."""
    return app.create(PROVIDERS[provider], options)


def serve(
    host: str = "127.0.0.1",
    port: int = 8900,
    faults: Path | None = None,
    *,
    options: EmulatorOptions | None = None,
    provider: str = "replicate",
) -> None:
    """Runs the emulator until it is told to stop; prints one line with its base URL.

    `faults` is a TOML or JSON file of faults in force from the start. Raises SettingsError for bad ones.
    """
    server.serve(PROVIDERS[provider], host, port, faults, options)
