"""`scripts/bench [accepted] [whole] [paced] [idle] [memory] [startup] [storm] [streams] [cage]`: all, or the named."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import uvloop

from bench import cage, footprint, storm, streams, table, throughput

MEASUREMENTS = {
    "accepted": throughput.accepted,
    "whole": throughput.whole,
    "paced": throughput.paced,
    "idle": throughput.idle,
    "memory": footprint.memory,
    "startup": footprint.startup,
    "storm": storm.storm,
    "streams": streams.streams,
    "cage": cage.cage,
}


async def main(names: list[str]) -> None:
    """Each measurement in a folder of its own, removed at the end."""
    figures = []
    for name in names:
        # Not in /tmp: that can be memory, where a sync costs nothing.
        with tempfile.TemporaryDirectory(prefix="reelhook-bench-", dir=Path.cwd()) as folder:
            figures += await MEASUREMENTS[name](Path(folder))
            print(f"measured: {name}", file=sys.stderr)
    table.show(figures)


unknown = set(sys.argv[1:]) - MEASUREMENTS.keys()
if unknown:
    sys.exit(f"{__doc__}\nunknown: {', '.join(sorted(unknown))}")
uvloop.run(main(sys.argv[1:] or list(MEASUREMENTS)))
