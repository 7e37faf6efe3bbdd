"""What anybody may ask for costs no more by being asked often: /readyz writes seldom, /metrics holds up nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from api_service import Service, running
from webserving import until

from backend.disk import faults
from backend.storage import Spool
from backend.upkeep import readiness
from backend.web.calls import metrics
from backend.web.calls.recent import Recent

FLOOD = 300


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as found:
        yield found


def flood(service: Service, path: str) -> float:
    """Ask many times at once; how many seconds it took."""
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: service.ask("GET", path, key="").status, range(FLOOD)))
    assert set(answers) <= {200, 503}
    return time.monotonic() - began


def test_a_flood_on_readyz_hardly_touches_the_disk_or_the_database(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, asked = [], []
    real_try, real_workload = Spool._try, readiness.workload
    monkeypatch.setattr(Spool, "_try", lambda self: written.append(1) or real_try(self))
    monkeypatch.setattr(readiness, "workload", lambda ctx: asked.append(1) or real_workload(ctx))
    took_s = flood(service, "/readyz")
    assert 1 <= len(written) <= 1 + took_s / 2 + 1
    assert len(asked) == len(written)


def test_a_storage_that_cannot_be_written_to_is_noticed_all_the_same(service: Service, tmp_path: Path) -> None:
    def storage() -> dict[str, object]:
        checks: dict[str, dict[str, object]] = service.ask("GET", "/readyz", key="").json()["checks"]
        return checks.get("storage", {})

    until(lambda: storage().get("ok"))
    (tmp_path / "media" / "tmp").rename(tmp_path / "elsewhere")
    until(lambda: storage().get("ok") is False)
    (tmp_path / "elsewhere").rename(tmp_path / "media" / "tmp")
    until(lambda: storage().get("ok"))


def test_unfinished_files_are_counted_and_a_spool_that_is_gone_is_no_reason_to_measure_nothing(
    service: Service, tmp_path: Path
) -> None:
    def counted() -> list[bytes]:
        lines = service.ask("GET", "/metrics", key="").body.splitlines()
        return [line for line in lines if line.startswith(b"reelhook_spool_")]

    service.ctx.spool.new().write_bytes(b"four")
    until(lambda: counted() == [b"reelhook_spool_files 1.0", b"reelhook_spool_bytes 4.0"])
    (tmp_path / "media" / "tmp").rename(tmp_path / "elsewhere")
    until(lambda: counted() == [b"reelhook_spool_files 0.0", b"reelhook_spool_bytes 0.0"])
    (tmp_path / "elsewhere").rename(tmp_path / "media" / "tmp")


def test_a_disk_that_failed_is_told_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.ask("GET", "/readyz", key="")
    monkeypatch.setattr(faults, "_declared", ["it broke"])
    answer = service.ask("GET", "/readyz", key="")
    assert (answer.status, answer.json()["checks"]) == (503, {"disk": {"ok": False, "why": "it broke"}})


def test_metrics_that_take_long_hold_up_no_other_request(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    real, drawn = metrics.render, []

    def slow() -> bytes:
        drawn.append(time.sleep(0.5 if len(drawn) < 3 else 0))  # slow on purpose
        return real()

    monkeypatch.setattr(metrics, "render", slow)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(service.ask, "GET", "/metrics", key="") for _ in range(20)]
        until(lambda: not all(each.done() for each in asked))
        began = time.monotonic()
        assert service.ask("GET", "/healthz", key="").status == 200
        spent = time.monotonic() - began
        assert {each.result().status for each in asked} == {200}
    assert spent < 0.45 and len(drawn) <= 3
    for _ in range(10):
        service.ask("GET", "/metrics", key="")
    assert len(drawn) <= 10


async def test_who_leaves_takes_the_answer_from_nobody_and_an_error_is_everybodys() -> None:
    asked = 0

    async def find() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)  # so long that others ask meanwhile
        if asked == 2:
            raise RuntimeError("no")
        return asked

    recent = Recent(find, 0.05)
    first, second = asyncio.create_task(recent()), asyncio.create_task(recent())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == await recent() == 1
    await asyncio.sleep(0.1)  # so that what was found is old
    ends = await asyncio.gather(recent(), recent(), return_exceptions=True)
    assert [str(end) for end in ends] == ["no", "no"]
    await asyncio.sleep(0.1)  # so that the error is old
    assert await recent() == 3
