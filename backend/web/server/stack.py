"""The web application put together: its routes, the middleware around them, and what they share."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware

from backend.web.calls import openapi, problems
from backend.web.calls.answering import routes
from backend.web.calls.operation import Operation
from backend.web.calls.site import Site
from backend.web.server.devmode import DevGuard
from backend.web.server.middleware import Envelope, ErrorBorder


def build(site: Site, operations: Sequence[Operation]) -> Starlette:
    """Return the application that serves these operations."""
    app = Starlette(
        routes=routes(operations),
        # From the outside in: what refuses a request is inside of what gives every answer its id and headers.
        middleware=[Middleware(Envelope), Middleware(ErrorBorder), Middleware(DevGuard)],
        exception_handlers=problems.HANDLERS,
    )
    app.router.redirect_slashes = False  # a redirect would be built from the Host header
    app.state.site = site
    app.state.openapi = openapi.document_bytes(operations)
    return app
