"""`/emulator`: the faults, the ledger and the clock, for tests and developers; no token."""

from __future__ import annotations

from collections import Counter

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.core.errors import SettingsError
from backend.emulator.kit import runs
from backend.emulator.kit.ledger import Ledger
from backend.emulator.kit.state import Emulator
from backend.emulator.replicate import orders, problems


async def get_faults(request: Request) -> Response:
    return JSONResponse({"faults": [fault.as_json() for fault in request.app.state.emulator.faults.items]})


async def put_faults(request: Request) -> Response:
    """Replaces all: `{"faults": [...]}`."""
    wanted = (await orders.read_body(request)).get("faults")
    if not isinstance(wanted, list):
        raise problems.invalid("faults", "required", "faults is a list")
    try:
        request.app.state.emulator.faults.replace(wanted)
    except SettingsError as wrong:
        raise problems.invalid("faults", "invalid", wrong.message) from wrong
    return await get_faults(request)


async def delete_faults(request: Request) -> Response:
    request.app.state.emulator.faults.replace([])
    return Response(status_code=204)


async def get_ledger(request: Request) -> Response:
    emulator: Emulator = request.app.state.emulator
    counted = emulator.predictions.in_order[emulator.forgotten :]
    by_status = Counter(prediction.status for prediction in counted)
    return JSONResponse({**emulator.ledger.as_json(), "predictions": dict(by_status)})


async def delete_ledger(request: Request) -> Response:
    """Forgets what was; predictions themselves stay."""
    emulator: Emulator = request.app.state.emulator
    emulator.ledger, emulator.forgotten = Ledger(), len(emulator.predictions.in_order)
    return Response(status_code=204)


async def expire(request: Request) -> Response:
    """Does now what an hour would do."""
    emulator: Emulator = request.app.state.emulator
    prediction = emulator.predictions.by_id.get(request.path_params["id"])
    if prediction is None:
        raise problems.not_found("Prediction")
    runs.expire(emulator, prediction)
    return JSONResponse(prediction.as_json())


async def healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})
