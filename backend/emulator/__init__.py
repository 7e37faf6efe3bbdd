"""Replicate's wire protocol, locally, with real PNG, JPEG and MP4: for demos, developers and tests.

server      the process                     app         the routes
orders      a create request is checked     creates     it becomes a prediction, or a fault strikes
runs        the prediction lives            making      its file is made, by render/ from inputs
webhooks    its creator is told             outputs     its file is fetched
reads       it is asked about               uploads     references come in
faults      what goes wrong on purpose      ledger      what was asked, for the tests
"""

from __future__ import annotations

from backend.emulator.kit.options import EmulatorOptions
from backend.emulator.kit.server import Server, serve
from backend.emulator.replicate.app import create

__all__ = ["EmulatorOptions", "Server", "create", "serve"]
