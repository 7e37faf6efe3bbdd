"""How many generations are accepted, and how many go the whole way, a second."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import floors, load, programs
from bench.programs import Service
from bench.table import Figure

SECRET = base64.b64decode("cmVlbGhvb2stZW11bGF0b3Itc2VjcmV0")  # the emulator's
ACCEPTED, WHOLE = 8000, 3000


async def accepted(folder: Path) -> list[Figure]:
    """POST /api/v2/generate/image over 16 connections, each in a transaction that is synced."""
    floor, commits = await floors.http_per_second(), floors.commits_per_second(folder)
    with programs.emulator() as emulator, programs.service(folder, emulator, "--no-worker") as service:
        campaign = await make_campaign(service)
        result = await load.run(service.port, lambda n: ask(service, campaign, n), ACCEPTED, 16)
    assert result.statuses == {202: ACCEPTED}, result.statuses
    shown = f"{floor:,.0f} bare POST/s, {commits:,.0f} commits/s"
    return [Figure("accepted", result.per_second, "/s", ">= 1,000 /s", shown, result.per_second / floor)]


async def whole(folder: Path) -> list[Figure]:
    """Accept, submit, webhook, download of a 100 kB image, store; and how soon webhooks are answered meanwhile."""
    floor = floors.files_per_second(folder)
    with programs.emulator() as emulator, programs.service(folder, emulator) as service:
        campaign = await make_campaign(service)
        await load.run(service.port, lambda n: ask(service, campaign, n), 50, 4)
        await until_completed(folder, 50)
        sent, began = known_webhook(folder), time.perf_counter()
        prober = asyncio.create_task(load.run(service.port, lambda n: sent(n), 400, 1, pace_s=0.02))
        await load.run(service.port, lambda n: ask(service, campaign, n), WHOLE, 16)
        await until_completed(folder, WHOLE + 50)
        per_second = WHOLE / (time.perf_counter() - began)
        probes = await prober
    assert probes.statuses == {200: 400}, probes.statuses
    return [
        Figure(
            "whole pipeline", per_second, "/s", ">= 150 /s", f"{floor:,.0f} synced 100 kB files/s", per_second / floor
        ),
        Figure("webhook answer p50 under it", probes.percentile_ms(0.5), "ms", ""),
        Figure("webhook answer p99 under it", probes.percentile_ms(0.99), "ms", "< 20 ms"),
    ]


async def paced(folder: Path) -> list[Figure]:
    """How soon webhooks are answered while half of what is possible goes the whole way, evenly spread."""
    with programs.emulator() as emulator, programs.service(folder, emulator) as service:
        campaign = await make_campaign(service)
        await load.run(service.port, lambda n: ask(service, campaign, n), 50, 4)
        await until_completed(folder, 50)
        sent = known_webhook(folder)
        prober = asyncio.create_task(load.run(service.port, lambda n: sent(n), 600, 1, pace_s=0.02))
        result = await load.run(service.port, lambda n: ask(service, campaign, n), 1100, 8, pace_s=0.1)
        await until_completed(folder, 1150)
        probes = await prober
    rate = f"{result.per_second:.0f} generations/s"
    return [
        Figure(f"webhook answer p50 at {rate}", probes.percentile_ms(0.5), "ms", ""),
        Figure(f"webhook answer p99 at {rate}", probes.percentile_ms(0.99), "ms", "< 20 ms"),
    ]


async def idle(folder: Path) -> list[Figure]:
    """From a webhook's arrival to `completed`, one generation at a time."""
    with programs.emulator() as emulator, programs.service(folder, emulator) as service:
        campaign = await make_campaign(service)
        for number in range(30):
            await load.run(service.port, lambda n, number=number: ask(service, campaign, number), 1, 1)
            await until_completed(folder, number + 1)
        with closing(open_database(folder)) as database:
            spans = database.execute(
                """
                SELECT g.finished_at - MAX(d.received_at) FROM generations g JOIN deliveries d ON d.generation_id = g.id
                GROUP BY g.id ORDER BY 1
                """
            ).fetchall()
    return [
        Figure("webhook to completed, idle, median", spans[len(spans) // 2][0], "ms", "< 50 ms"),
        Figure("webhook to completed, idle, slowest of 30", spans[-1][0], "ms", ""),
    ]


def ask(service: Service, campaign: str, number: int) -> bytes:
    """A request for an image."""
    body: dict[str, Any] = {"campaign_id": campaign, "prompt": f"a red bicycle, take {number}"}
    return load.post("/api/v2/generate/image", service.key, body)


async def make_campaign(service: Service) -> str:
    """A campaign to generate for."""
    made = await load.run(
        service.port, lambda _: load.post("/api/v2/campaigns", service.key, {"name": "b"}), 1, 1, keep=True
    )
    return str(json.loads(made.bodies[0])["id"])


async def until_completed(folder: Path, count: int, within_s: float = 300) -> None:
    """Until so many generations are completed."""
    end = time.monotonic() + within_s
    with closing(open_database(folder)) as database:
        while time.monotonic() < end:
            found = dict(database.execute("SELECT status, COUNT(*) FROM generations GROUP BY status").fetchall())
            if found.get("completed", 0) >= count:
                return
            assert not found.get("failed"), found
            await asyncio.sleep(0.25)  # counting them costs what is measured
    raise TimeoutError(found)


def known_webhook(folder: Path) -> Any:
    """Webhooks that are signed as the provider signs them, each with an id of its own, for a finished generation."""
    from backend.providers.signatures import sign

    with closing(open_database(folder)) as database:
        id, nonce, theirs = database.execute("SELECT id, nonce, provider_id FROM generations LIMIT 1").fetchone()
    body = json.dumps({"id": theirs, "status": "processing"}).encode()

    def make(number: int) -> bytes:
        now, name = int(time.time()), f"msg_probe_{number}"
        headers = {
            "webhook-id": name,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(SECRET, name, now, body),
        }
        return load.request("POST", f"/webhooks/replicate/{id}/{nonce}", headers, body)

    return make


def open_database(folder: Path) -> sqlite3.Connection:
    """To look at, beside the running service."""
    return sqlite3.connect(f"file:{folder}/reelhook.db?mode=ro", uri=True)
