"""The web application put together: routes, what surrounds them, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.middleware import Middleware

from backend.web import docs, health, openapi, problems  # noqa: F401  docs and health register their operations
from backend.web.devmode import DevGuard
from backend.web.middleware import Envelope, ErrorBorder
from backend.web.operation import OPERATIONS, Operation, routes
from backend.web.site import Site

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
