"""POST predictions: written down, perhaps spoiled by a fault, accepted, answered."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.emulator.kit import runs
from backend.emulator.kit.connection import Reset
from backend.emulator.kit.kinds import Arguments
from backend.emulator.kit.ledger import Create
from backend.emulator.kit.predictions import Prediction
from backend.emulator.kit.state import Emulator
from backend.emulator.replicate import orders, problems
from backend.emulator.replicate.orders import Order

Struck = dict[str, Arguments]


async def create_by_version(request: Request) -> Response:
    return await _create(request, None)


async def create_for_model(request: Request) -> Response:
    return await _create(request, "{owner}/{name}".format(**request.path_params))


async def _create(request: Request, slug: str | None) -> Response:
    emulator: Emulator = request.app.state.emulator
    body = await orders.read_body(request)
    entry = orders.write_down(body, slug)
    emulator.ledger.creates.append(entry)
    try:
        order = orders.check(body, slug, request)
        response = await _answer(emulator, request, order, entry)
    except problems.Refusal:
        entry.answered = True
        raise
    entry.answered = not isinstance(response, Reset) and not await request.is_disconnected()
    return response


async def _answer(emulator: Emulator, request: Request, order: Order, entry: Create) -> Response:
    struck = emulator.faults.strike("create", order.model.slug, str(order.input.get("prompt", "")))
    if "delay" in struck:
        await asyncio.sleep(struck["delay"]["delay_s"])
    _refuse(struck)
    if "reset_before" in struck:
        return Reset()
    prediction = accept(emulator, order, orders.origin(request))
    entry.prediction_id, entry.created = prediction.id, True
    return await _answer_created(emulator, request, prediction, struck)


def _refuse(struck: Struck) -> None:
    """Raises what a fault wants to be answered instead of a prediction."""
    if "create_401" in struck:
        raise problems.unauthenticated()
    if "create_402" in struck:
        raise problems.insufficient_credit()
    if "create_422" in struck:
        raise problems.invalid("input", "invalid", struck["create_422"]["detail"])
    if "create_429" in struck:
        raise throttled(struck["create_429"])
    for status in (500, 502, 503):
        if f"create_{status}" in struck:
            raise problems.server_error(status)


def throttled(arguments: Arguments) -> problems.Refusal:
    return problems.throttled(arguments["retry_after"], in_body=arguments["in_body"], in_header=arguments["in_header"])


def accept(emulator: Emulator, order: Order, origin: str) -> Prediction:
    """From here on it exists, runs, and would be paid for."""
    prompt = str(order.input.get("prompt", ""))
    faults = emulator.faults.strike("run", order.model.slug, prompt)
    faults |= emulator.faults.strike("webhook", order.model.slug, prompt)
    prediction = Prediction(order.model, order.input, origin, webhook=order.webhook, events=order.events, faults=faults)
    emulator.predictions.add(prediction)
    runs.start(emulator, prediction)
    if order.life is not None:
        prediction.deadline_at = prediction.created_at + order.life
        emulator.spawn(runs.guard_deadline(emulator, prediction, order.life.total_seconds()))
    return prediction


async def _answer_created(emulator: Emulator, request: Request, prediction: Prediction, struck: Struck) -> Response:
    if "webhook_before_answer" in struck:
        await _until_announced(prediction)
    if "create_hang" in struck:
        await asyncio.sleep(struck["create_hang"]["delay_s"])
    if "reset_after" in struck:
        return Reset()
    if "create_500_after" in struck:
        raise problems.server_error(struck["create_500_after"]["status"])
    if "create_bad_json" in struck:
        return Response('{"id": "', 201, media_type="application/json")
    wait_s = orders.wait_s(request)
    if wait_s is None:
        return _shown(prediction, 201, {})
    await runs.lasts(prediction, wait_s)
    return _shown(prediction, 201 if prediction.is_final else 202, {"preference-applied": f"wait={wait_s}"})


async def _until_announced(prediction: Prediction) -> None:
    await prediction.ended.wait()
    if prediction.last_announcement:
        await asyncio.wait({prediction.last_announcement}, timeout=30)


def _shown(prediction: Prediction, status: int, headers: dict[str, str]) -> Response:
    shown = prediction.as_json()
    return JSONResponse(shown, status, headers={"location": shown["urls"]["get"], **headers})
