"""Take a create request: write it down, let a fault strike, accept it, answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from backend.emulator.kit import life, refusals
from backend.emulator.kit.connection import Reset, halved
from backend.emulator.kit.fault_kinds import Arguments
from backend.emulator.kit.faults import pause
from backend.emulator.kit.ledger import Create
from backend.emulator.kit.orders import Order
from backend.emulator.kit.refusals import Refusal
from backend.emulator.kit.runs import Run
from backend.emulator.kit.state import Emulator, emulator_of, origin

Struck = dict[str, Arguments]
Answer = Callable[[Run], Awaitable[Response]]


async def take(request: Request, entry: Create, check: Callable[[], Order], answer: Answer) -> Response:
    """Takes one create from its entry in the ledger to its answer.

    `check` reads the order and raises a Refusal for a wrong one. `answer` may wait for the run's end, as providers
    do that answer with the result.
    """
    # Before anything can go wrong: tests count the bills by the ledger, also of creates that got no answer.
    emulator_of(request).ledger.creates.append(entry)
    try:
        response = await _answer(request, entry, check(), answer)
    except Refusal:
        entry.answered = True
        raise
    entry.answered = not isinstance(response, Reset) and not await request.is_disconnected()
    return response


async def _answer(request: Request, entry: Create, order: Order, answer: Answer) -> Response:
    emulator = emulator_of(request)
    struck = emulator.faults.strike("create", order.model, order.work.prompt)
    await pause(struck)
    _refuse(struck)
    if down := struck.get("connection_refused"):
        emulator.spawn(request.app.state.server.refuse_connections(down["down_s"]))
        return Reset()
    if "reset_before" in struck:  # the client cannot tell it from `reset_after`, where the run exists and is paid
        return Reset()
    run = accept(emulator, order, origin(request))
    entry.prediction_id, entry.created = run.id, True
    return await _answer_created(run, struck, answer)


def _refuse(struck: Struck) -> None:
    """Raises what a fault wants to be answered instead of a run."""
    if "create_401" in struck:
        raise refusals.unauthenticated()
    if "create_402" in struck:
        raise refusals.no_credit()
    if told := struck.get("create_422"):
        raise refusals.invalid("input", "invalid", told["detail"])
    if told := struck.get("create_429"):
        raise refusals.throttled(**told)
    for status in (500, 502, 503):
        if f"create_{status}" in struck:
            raise refusals.unavailable(status)


def accept(emulator: Emulator, order: Order, origin: str) -> Run:
    """Makes the run. From here on it exists, works, and would be paid for."""
    run = Run(order.model, order.work, order.input, origin, order.webhook, order.events, order.extra)
    run.id = emulator.provider.new_id()
    run.faults = emulator.faults.strike("run", run.model, run.prompt)
    run.faults |= emulator.faults.strike("webhook", run.model, run.prompt)
    emulator.runs.add(run)
    life.start(emulator, run)
    if order.life is not None:
        run.deadline_at = run.created_at + order.life
        emulator.spawn(life.guard_deadline(emulator, run, order.life.total_seconds()))
    return run


async def _answer_created(run: Run, struck: Struck, answer: Answer) -> Response:
    if "webhook_before_answer" in struck:  # real ones overtake the answer to their create, when the run is short
        await _until_announced(run)
    if "create_hang" in struck:
        await asyncio.sleep(struck["create_hang"]["delay_s"])
    if "reset_after" in struck:
        return Reset()
    if "create_500_after" in struck:
        raise refusals.unavailable(struck["create_500_after"]["status"])
    told = await answer(run)
    return halved(told) if "create_bad_json" in struck else told


async def _until_announced(run: Run) -> None:
    await run.ended.wait()
    if run.last_announcement:
        await asyncio.wait({run.last_announcement}, timeout=30)
