"""What the worst files cost, and what everybody else notices of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path

import hostile_files
import processes
from PIL import Image

from bench import load, programs
from bench.load import Result
from bench.programs import Service
from bench.table import Figure

PICTURES, HEALTH, UPLOADS = 400, 1500, 60
WORST = ("a JPEG of scans", "a film of large key frames", "a GIF of large frames")


async def cage(folder: Path) -> list[Figure]:
    """Each hostile file alone; then three clients with the worst ones beside everybody else."""
    files = {name: folder / f"{number}" for number, name in enumerate(hostile_files.HOSTILE)}
    for name, path in files.items():
        hostile_files.HOSTILE[name](path)
    with programs.emulator() as emulator, programs.service(folder, emulator, others=4) as service:
        keys = service.others
        good = upload(keys[0], picture())
        await load.run(service.port, lambda _: good, 20, 1)
        quiet = await load.run(service.port, lambda _: good, PICTURES, 1)
        calm = await health(service)
        costs = [await cost_of(service, keys[1], path) for path in files.values()]
        worst = [files[name].read_bytes() for name in WORST]
        async with attacking(service, keys[1:], worst):
            beside, answered = await asyncio.gather(uploads(service, good), health(service))
    largest_mb, longest_s = max(mb for mb, _ in costs), max(seconds for _, seconds in costs)
    floor_ms = quiet.percentile_ms(0.5)
    return [
        Figure("a PNG is brought, p50", floor_ms, "ms", "", f"{in_process_ms():.1f} ms decoded here"),
        Figure(f"memory for any of {len(costs)} hostile files", largest_mb, "MB", "< 300 MB"),
        Figure("the longest of them", longest_s, "s", "< 20 s"),
        ratio("/healthz beside three of the worst, p99", answered, "< 50 ms", calm.percentile_ms(0.99)),
        ratio("a PNG beside them, p99", beside, "< 1,000 ms", quiet.percentile_ms(0.99)),
    ]


def ratio(name: str, result: Result, wanted: str, alone_ms: float) -> Figure:
    """The 99th percentile, compared with the same when nobody else asks."""
    found = result.percentile_ms(0.99)
    return Figure(name, found, "ms", wanted, f"{alone_ms:.1f} ms alone", found / alone_ms)


async def health(service: Service) -> Result:
    """A question every few milliseconds, over one connection."""
    asked = load.request("GET", "/healthz", {})
    return await load.run(service.port, lambda _: asked, HEALTH, 1, pace_s=0.005)


async def uploads(service: Service, good: bytes) -> Result:
    """Another client's pictures, one after the other."""
    result = await load.run(service.port, lambda _: good, UPLOADS, 1, pace_s=0.1)
    assert result.statuses == {201: UPLOADS}, result.statuses
    return result


async def cost_of(service: Service, key: str, path: Path) -> tuple[float, float]:
    """The megabytes that are needed for one file beyond what the service has at rest, and the seconds."""
    content, began = upload(key, path.read_bytes()), time.perf_counter()
    before = most = service.resident_mb()
    sending = asyncio.create_task(load.run(service.port, lambda _: content, 1, 1))
    while not sending.done():
        children = [processes.resident_mb(pid) for pid in processes.children(service.process.pid)]
        most = max(most, service.resident_mb() + max(children, default=0))
        await asyncio.sleep(0.01)
    statuses = (await sending).statuses
    assert statuses.keys() <= {201, 422}, (path, statuses)
    return most - before, time.perf_counter() - began


@asynccontextmanager
async def attacking(service: Service, keys: list[str], contents: list[bytes]) -> AsyncIterator[None]:
    """Each client sends these files again and again."""

    async def attack(key: str, at: int) -> None:
        for content in itertools.cycle(contents[at:] + contents[:at]):
            sent: Callable[[int], bytes] = lambda _, content=content: upload(key, content)  # type: ignore[misc]  # noqa: E731
            await load.run(service.port, sent, 1, 1)

    enemies = [asyncio.create_task(attack(key, at)) for at, key in enumerate(keys)]
    await asyncio.sleep(1)
    try:
        yield
    finally:
        for enemy in enemies:
            enemy.cancel()
            with suppress(asyncio.CancelledError):
                await enemy


def upload(key: str, content: bytes) -> bytes:
    """A form with one file."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + content + b"\r\n--b--\r\n"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "multipart/form-data; boundary=b"}
    return load.request("POST", "/api/v2/assets", headers, body)


def picture() -> bytes:
    """An ordinary PNG of half a megapixel."""
    made = BytesIO()
    Image.effect_noise((96, 64), 60).resize((960, 640)).convert("RGB").save(made, "PNG")
    return made.getvalue()


def in_process_ms() -> float:
    """How long the same picture takes to be decoded without any cage."""
    content, times = picture(), []
    for _ in range(20):
        began = time.perf_counter()
        with Image.open(BytesIO(content)) as image:
            image.load()
        times.append(time.perf_counter() - began)
    return sorted(times)[10] * 1000
