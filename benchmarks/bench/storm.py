"""How long a good key waits for its answer while two hundred bad ones are shown at once, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from bench import load, programs, throughput
from bench.load import Result
from bench.programs import Service
from bench.table import Figure

BAD, WAVES, PACE_S = 200, 4, 0.5
GOOD, GOOD_PACE_S = 600, 0.005


async def storm(folder: Path) -> list[Figure]:
    """GET of a list with a known key: idle, in a storm from one address, and in one from a thousand."""
    with (
        programs.emulator() as emulator,
        programs.service(folder, emulator, "--no-worker", TRUSTED_PROXIES="127.0.0.0/8") as service,
    ):
        await throughput.make_campaign(service)
        idle = await probe(service)
        one = await probe_in_storm(service, lambda n: "203.0.113.1")
        many = await probe_in_storm(service, lambda n: f"10.0.{n // 250}.{n % 250}")
    return [
        Figure("good key p99, idle", idle.percentile_ms(0.99), "ms", ""),
        compared("good key p99, 200 bad keys of one address", one, idle),
        compared("good key p99, 200 bad keys of many addresses", many, idle),
    ]


def compared(name: str, stormy: Result, idle: Result) -> Figure:
    """The figure with how many times longer than idle it is."""
    p99, still = stormy.percentile_ms(0.99), idle.percentile_ms(0.99)
    return Figure(name, p99, "ms", "<= 5x idle", f"{still:.1f} ms idle", p99 / still)


async def probe(service: Service) -> Result:
    """The good key asks, evenly spread."""
    asked = load.request("GET", "/api/v2/campaigns", {"Authorization": f"Bearer {service.key}"})
    result = await load.run(service.port, lambda _: asked, GOOD, 1, pace_s=GOOD_PACE_S)
    assert result.statuses == {200: GOOD}, result.statuses
    return result


async def probe_in_storm(service: Service, address: Callable[[int], str]) -> Result:
    """The good key asks while each of 200 connections shows a bad one twice a second."""

    def bad(number: int) -> bytes:
        headers = {"Authorization": f"Bearer sk_{number:043d}", "X-Forwarded-For": address(number)}
        return load.request("GET", "/api/v2/campaigns", headers)

    async def rage(connection: int) -> Result:
        await asyncio.sleep(connection / BAD * PACE_S)  # else they beat in time, and that is what would be measured
        return await load.run(service.port, lambda wave: bad(wave * BAD + connection), WAVES, 1, pace_s=PACE_S)

    raging = [asyncio.create_task(rage(connection)) for connection in range(BAD)]
    result = await probe(service)
    refused = {status for one in await asyncio.gather(*raging) for status in one.statuses}
    assert refused <= {401, 429, 503}, refused
    return result
