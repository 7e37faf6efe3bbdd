"""The web application put together: routes, what surrounds them, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.middleware import Middleware

from backend.web.calls import openapi, problems
from backend.web.calls.operation import OPERATIONS, Operation, routes
from backend.web.calls.site import Site
from backend.web.server import docs, health  # noqa: F401  docs and health register their operations
from backend.web.server.devmode import DevGuard
from backend.web.server.middleware import Envelope, ErrorBorder

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def build(
    site: Site | None = None, operations: Sequence[Operation] = OPERATIONS, lifespan: Lifespan | None = None
) -> Starlette:
    """The application. Without a site its lifespan has to set `app.state.site` before it yields."""
    app = Starlette(
        routes=routes(operations),
        middleware=[Middleware(Envelope), Middleware(ErrorBorder), Middleware(DevGuard)],
        exception_handlers=problems.HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would be built from the Host header
    app.state.site = site
    app.state.openapi = openapi.document_bytes(operations)
    return app
