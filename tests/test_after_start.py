"""What is done once after a start may break off: then somebody is told, and the service works all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from backend import app
from backend.config import Settings
from backend.providers.replicate.webhooks import SignedWebhooks
from backend.upkeep import orphans
from backend.worker import Worker


def failed(routine: str) -> float:
    return REGISTRY.get_sample_value("reelhook_routines_failed_total", {"routine": routine}) or 0.0


async def breaks(*_: object) -> None:
    raise RuntimeError("nobody foresaw this")


async def run(folder: Path) -> list[str]:
    """Start the worker's process and stop it when its files can be looked into; the events of its log."""
    settings = Settings(
        _env_file=None,
        database_url=f"sqlite:///{folder}/reelhook.db",
        storage_url=f"file:{folder}/media",
        replicate_api_key="r8_emulator",
        replicate_webhook_secret="whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    warm = asyncio.Event()
    with capture_logs() as logs:
        async with app.open_context(settings) as ctx:
            ctx.cage.warm = _ringing(warm)  # type: ignore[method-assign]
            worker = Worker(ctx)
            async with app._background(ctx, worker, True, warm.set):
                await asyncio.wait_for(warm.wait(), 20)
                assert not worker.stopping.is_set()
    return [f"{line['event']} {line.get('routine', '')}".strip() for line in logs]


def _ringing(warm: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def ring() -> None:
        warm.set()

    return ring


async def test_a_start_sweeps_and_fails_at_nothing(tmp_path: Path) -> None:
    logged = await run(tmp_path)
    assert "storage_swept" in logged and not any(line.startswith("routine_failed") for line in logged)


@pytest.mark.parametrize(
    ("where", "what", "routine"),
    [
        (orphans, "sweep_orphans", "sweep"),
        (app, "note_settings", "note_settings"),
        (SignedWebhooks, "open", "open_providers"),
    ],
)
async def test_what_breaks_off_after_a_start_is_logged_and_counted_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, what: str, routine: str
) -> None:
    before = failed(routine)
    monkeypatch.setattr(where, what, breaks)
    logged = await run(tmp_path)
    assert [line for line in logged if line.startswith("routine_failed")] == [f"routine_failed {routine}"]
    assert failed(routine) == before + 1
    assert ("storage_swept" in logged) == (routine != "sweep")
