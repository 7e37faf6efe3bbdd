"""Two more toys: one that answers a create with the file inside, and one that must be asked by more than the id."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from toy_emulator import KEY, TOY, read_order, show
from toy_provider import Toy

from backend.core.catalog import ProviderFacts
from backend.core.outcomes import Outcome
from backend.emulator.kit import life
from backend.emulator.kit.bodies import read_object
from backend.emulator.kit.creates import take
from backend.emulator.kit.keys import keyed
from backend.emulator.kit.ledger import write_down
from backend.emulator.kit.reads import answer_about, find
from backend.emulator.kit.refusals import not_found
from backend.emulator.kit.runs import Run
from backend.emulator.kit.state import emulator_of
from backend.http import HttpAnswer
from backend.providers import reading
from backend.providers.base import Handle, Means


def _create(answer: Any) -> Any:
    async def create(request: Request) -> Response:
        body = await read_object(request)
        entry = write_down(str(body.get("model"))[:100], body.get("input"))
        return await take(request, entry, lambda: read_order(body), answer)

    return keyed(create)


async def _at_its_end(run: Run) -> Response:
    await run.ended.wait()
    return JSONResponse(show(run), 201)


AT_ONCE = replace(TOY, routes=[Route("/jobs", _create(_at_its_end), methods=["POST"]), *TOY.routes[1:]])


def region(run: Run) -> str:
    """Where a run is kept: it cannot be told from the id alone."""
    return f"eu-{run.created_at.microsecond}"


async def _with_region(run: Run) -> Response:
    return JSONResponse({"job": run.id, "state": "queued", "region": region(run)}, 201)


def _of_region(request: Request) -> Run:
    run = find(request, request.path_params["id"])
    if region(run) != request.path_params["region"]:
        raise not_found("Job")
    return run


async def _get(request: Request) -> Response:
    return await answer_about(request, _of_region(request).id, lambda run: JSONResponse(show(run)))


async def _cancel(request: Request) -> Response:
    run = _of_region(request)
    life.cancel(emulator_of(request), run)
    return JSONResponse(show(run))


REGIONAL = replace(
    TOY,
    routes=[
        Route("/jobs", _create(_with_region), methods=["POST"]),
        Route("/{region}/jobs/{id}", keyed(_get), methods=["GET"]),
        Route("/{region}/jobs/{id}/cancel", keyed(_cancel), methods=["POST"]),
    ],
)


class Regional(Toy):
    """It is asked by its region and its id."""

    def __init__(self, means: Means, facts: ProviderFacts, *, base_url: str, key: str) -> None:
        super().__init__(means, facts, base_url=base_url, key=key)
        self.cancellation = self

    def created(self, answer: HttpAnswer) -> Outcome:
        """The job, and its region."""
        outcome = super().created(answer)
        return replace(outcome, ref={"region": reading.id_of(reading.member(answer.json(), "region"))})

    def told(self, answer: HttpAnswer) -> Outcome:
        """The job; one that was stopped is told as an error."""
        outcome = super().told(answer)
        code = reading.member(answer.json(), "error", "code")
        return Outcome(outcome.provider_id, "canceled") if code == "canceled" else outcome

    def path_of(self, handle: Handle) -> str:
        """Where the job is asked for."""
        return f"/{reading.in_path(handle.ref.get('region', ''))}{super().path_of(handle)}"

    async def cancel(self, handle: Handle) -> Outcome:
        """Stop the job."""
        return await self.look("POST", handle, "/cancel")


def build_regional(means: Means, facts: ProviderFacts, origin: str) -> Regional:
    """The regional toy's account, at this origin."""
    return Regional(means, facts, base_url=origin, key=KEY)
