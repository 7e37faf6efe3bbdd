"""Is it alive, can it work, and what did it count: for whoever runs the service."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from backend.disk import faults
from backend.web.calls.operation import Call, operation


class Alive(BaseModel):
    """The process answers."""

    status: str


class Check(BaseModel):
    """One thing the service needs, and why it is missing."""

    ok: bool
    why: str | None = None


class Readiness(BaseModel):
    """Whether work is taken and done."""

    status: str
    checks: dict[str, Check]


@operation("GET", "/healthz", answers={200: Alive}, auth="none", tags=["health"])
async def healthz(call: Call) -> Response:
    """Say that the process answers.

    Nothing is checked: a database that is away is no reason to restart this process.
    """
    return JSONResponse({"status": "ok"})


@operation("GET", "/readyz", answers={200: Readiness, 503: Readiness}, auth="none", tags=["health"])
async def readyz(call: Call) -> Response:
    """Check everything that work needs: 503 names what is missing. What was found is told for two seconds."""
    if why := faults.reason():  # nothing is asked of the disk any more
        checks = {"disk": Check(ok=False, why=why)}
    else:
        checks = {name: Check.model_validate(check) for name, check in (await call.site.recent_readiness()).items()}
    ready = all(check.ok for check in checks.values())
    shown = Readiness(status="ready" if ready else "not_ready", checks=checks)
    return JSONResponse(shown.model_dump(), 200 if ready else 503)


@operation("GET", "/metrics", answers={200: "text/plain"}, auth="none", tags=["health"])
async def show_metrics(call: Call) -> Response:
    """Give Prometheus its text."""
    return Response(await call.site.recent_metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")
