"""Answer what clients ask about runs, with the faults that strike such answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from backend.emulator.kit import refusals
from backend.emulator.kit.connection import Reset, halved
from backend.emulator.kit.fault_kinds import Arguments
from backend.emulator.kit.faults import pause
from backend.emulator.kit.runs import Run
from backend.emulator.kit.state import emulator_of


def find(request: Request, id: str) -> Run:
    """Raises a 404 Refusal; no fault strikes."""
    emulator = emulator_of(request)
    run = emulator.runs.by_id.get(id)
    if run is None:
        raise refusals.not_found(emulator.provider.noun)
    return run


async def answer_about(request: Request, id: str, answer: Callable[[Run], Response]) -> Response:
    """Answers a client that asks about its run, after the faults have struck."""
    emulator = emulator_of(request)
    emulator.ledger.gets += 1
    run = find(request, id)
    struck = emulator.faults.strike("get", run.model, run.prompt)
    await pause(struck)
    if "get_reset" in struck:
        return Reset()
    _refuse(struck, emulator.provider.noun)
    return halved(answer(run)) if "get_bad_json" in struck else answer(run)


def _refuse(struck: dict[str, Arguments], noun: str) -> None:
    if "get_500" in struck:
        raise refusals.unavailable(500)
    if "get_404" in struck:
        raise refusals.not_found(noun)
    if told := struck.get("get_429"):
        raise refusals.throttled(**told)


async def listed(request: Request) -> list[Run]:
    """Returns the runs that a list shows now, oldest first; the caller does not change it."""
    emulator = emulator_of(request)
    emulator.ledger.lists += 1
    struck = emulator.faults.strike("list")
    await pause(struck)
    if "list_empty" in struck:
        return []
    if late := struck.get("list_lagging"):
        newest = datetime.now(UTC) - timedelta(seconds=late["by_s"])
        return [run for run in emulator.runs.in_order if run.created_at < newest]
    return emulator.runs.in_order
