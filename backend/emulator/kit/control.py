"""`/emulator`: the faults, the ledger and the clock, for tests and developers; no key."""

from __future__ import annotations

from collections import Counter

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.core.errors import SettingsError
from backend.emulator.kit import life, refusals
from backend.emulator.kit.bodies import read_object
from backend.emulator.kit.ledger import Ledger
from backend.emulator.kit.reads import find
from backend.emulator.kit.state import emulator_of


async def get_faults(request: Request) -> Response:
    return JSONResponse({"faults": [fault.as_json() for fault in emulator_of(request).faults.items]})


async def put_faults(request: Request) -> Response:
    """Replaces all: `{"faults": [...]}`."""
    wanted = (await read_object(request)).get("faults")
    if not isinstance(wanted, list):
        raise refusals.invalid("faults", "required", "faults is a list")
    try:
        emulator_of(request).faults.replace(wanted)
    except SettingsError as wrong:
        raise refusals.invalid("faults", "invalid", wrong.message) from wrong
    return await get_faults(request)


async def delete_faults(request: Request) -> Response:
    emulator_of(request).faults.replace([])
    return Response(status_code=204)


async def get_ledger(request: Request) -> Response:
    emulator = emulator_of(request)
    by_status = Counter(run.status for run in emulator.runs.in_order[emulator.forgotten :])
    return JSONResponse({**emulator.ledger.as_json(), "predictions": dict(by_status)})


async def delete_ledger(request: Request) -> Response:
    """Forgets what was asked; the runs themselves stay."""
    emulator = emulator_of(request)
    emulator.ledger, emulator.forgotten = Ledger(), len(emulator.runs.in_order)
    return Response(status_code=204)


async def expire(request: Request) -> Response:
    """Deletes now what would be deleted in an hour."""
    emulator, run = emulator_of(request), find(request, request.path_params["id"])
    life.expire(emulator, run)
    return JSONResponse(emulator.provider.show(run))


async def healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})
