"""What open event streams cost: memory, and how many generations are accepted while they are open."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench import floors, load, programs, throughput
from bench.programs import Service
from bench.table import Figure

OPEN, ACCEPTED = 1000, 8000

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def streams(folder: Path) -> list[Figure]:
    """A thousand listeners to one campaign in which generations are accepted."""
    floor = await floors.http_per_second()
    with programs.emulator() as emulator, programs.service(folder, emulator, "--no-worker") as service:
        campaign = await throughput.make_campaign(service)
        await load.run(service.port, lambda n: throughput.ask(service, campaign, n), 200, 16)  # so that all is loaded
        before_mb = service.resident_mb()
        lines = await open_streams(service, f"/api/v2/campaigns/{campaign}/events", OPEN)
        open_mb = service.resident_mb() - before_mb
        result = await load.run(service.port, lambda n: throughput.ask(service, campaign, n), ACCEPTED, 16)
        whole_mb = service.resident_mb() - before_mb
        for _, writer in lines:
            writer.close()
    assert result.statuses == {202: ACCEPTED}, result.statuses
    shown = f"{floor:,.0f} bare POST/s"
    return [
        Figure(f"memory of {OPEN} open streams", open_mb, "MB", "< 100 MB"),
        Figure("the same after accepting", whole_mb, "MB", "< 100 MB"),
        Figure(
            f"accepted beside {OPEN} streams", result.per_second, "/s", "> 500 /s", shown, result.per_second / floor
        ),
    ]


async def open_streams(service: Service, path: str, count: int) -> list[Line]:
    """So many connections, each with a stream that has begun."""
    asked = load.request("GET", path, {"Authorization": f"Bearer {service.key}"})

    async def one() -> Line:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(asked)
        head = await reader.readuntil(b"retry: 2000")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return reader, writer

    return [line for _ in range(0, count, 50) for line in await asyncio.gather(*[one() for _ in range(50)])]
