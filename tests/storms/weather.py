"""What goes wrong at the provider: every kind of fault there is, each at every so-many-th occasion."""

from __future__ import annotations

import random
from typing import Any

from backend.emulator.kit.fault_kinds import KINDS

# Arguments that keep a run short. Faults without an end strike a few times only, or nothing would ever be calm.
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "delay": [{"on": "create", "delay_s": 0.3}, {"on": "run", "delay_s": 0.5}, {"on": "output", "delay_s": 0.3}],
    "create_401": [{"times": 1}],  # each of these two pauses the provider for a minute
    "create_402": [{"times": 1}],
    "create_429": [{"retry_after": 1}],
    "create_hang": [{"delay_s": 2.0}],
    "connection_refused": [{"down_s": 0.5, "times": 2}],  # the auditor asks the emulator too
    "list_lagging": [{"by_s": 3.0}],
    "webhook_lost": [{}, {"events": ["completed"]}],
    "webhook_duplicate": [{"count": 3}],
    "webhook_late": [{"delay_s": 3.0}, {"delay_s": 1.0, "events": ["start"]}],
    "unknown_status": [{}, {"forever": True, "times": 2}],
    "stuck": [{"times": 2}],
    "output_bytes": [{"bytes": 400_000}],
    "get_429": [{"retry_after": 1}],
    "output_huge": [{"times": 3}],
    "output_file": [{"base64": "bm90IGEgcGljdHVyZQ=="}],
    "output_404": [{}, {"status": 503}],
    "output_truncated": [{}, {"chunked": True}],
    "output_gzip": [{}, {"bytes": 8_000_000}],
    "output_slow": [{"bytes_per_s": 100_000}],
}
OFTEN = {"get": 4, "list": 15}  # there are few of these occasions, so they are spoiled more often


def change(chance: random.Random, rare: int) -> list[dict[str, Any]]:
    """All kinds, each at every `rare`-th to six times `rare`-th occasion."""
    return [
        {"kind": kind, "match": {"every": _every(chance, rare // OFTEN.get(stage, 1))}, **more}
        for kind, (stage, _, _) in KINDS.items()
        for more in ARGUMENTS.get(kind, [{}])
    ]


def _every(chance: random.Random, rare: int) -> int:
    return chance.randint(max(2, rare), max(4, rare * 6))
