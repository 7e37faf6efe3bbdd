"""Operations as routes: each request is authenticated, limited and validated, and then answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from backend.core.errors import Forbidden, NotFound
from backend.core.ids import is_id
from backend.core.people import Caller
from backend.web.callers import limits
from backend.web.calls import auth, inputs
from backend.web.calls.operation import Call, Operation
from backend.web.calls.site import Site


def routes(operations: Sequence[Operation]) -> list[Route]:
    """Return one route for each path, so that a 405 names every method. Fixed words come before parameters."""
    by_path: dict[str, dict[str, Operation]] = {}
    for made in operations:
        methods = by_path.setdefault(made.path, {})
        for method in (made.method, "HEAD") if made.head else (made.method,):
            if method in methods:
                raise ValueError(f"two operations for {method} {made.path}")
            methods[method] = made
    return [_route(path, by_path[path]) for path in sorted(by_path, key=_fixed_first)]


def _fixed_first(path: str) -> list[tuple[bool, str]]:
    return [("{" in part, part) for part in path.split("/")]


def _route(path: str, by_method: Mapping[str, Operation]) -> Route:
    async def endpoint(request: Request) -> Response:
        request.state.route = path
        return await run(by_method[request.method], request)

    # One route a path: with one for each method Starlette answers 405 with the methods of the first alone.
    route = Route(path, endpoint, methods=list(by_method), name=path)
    route.methods = set(by_method)  # Starlette adds HEAD to every GET, event streams included
    return route


async def run(made: Operation, request: Request) -> Response:
    """Answer one request. The order is: who asks, how often, what is asked, and then the handler."""
    site: Site = request.app.state.site
    site.lookout.look(request.scope)  # before anything can refuse: requests without a key show a wrong proxy too
    caller = await _admit(made, request, site)
    if caller is not None and made.limits:
        await limits.admit(site.limits, request, caller, made.limits)
    call = await _read(made, request, site, caller)
    response = await made.handler(call)
    limits.write_headers(request, response)
    return response


async def _admit(made: Operation, request: Request, site: Site) -> Caller | None:
    if made.auth == "none":
        return None
    if made.auth == "media" and auth.is_signed(request):
        auth.check_signed(request)
        return None
    caller = await auth.authenticate(request)
    if made.auth == "admin" and not caller.admin:
        raise Forbidden("Only an admin key may do that.")
    if site.dev_caller is not None and "write" in made.limits:  # also a GET that changes something
        auth.require_own_page(request.headers)
    return caller


async def _read(made: Operation, request: Request, site: Site, caller: Caller | None) -> Call:
    path = {name: str(value) for name, value in request.path_params.items()}
    if not all(is_id(value) for name, value in path.items() if name == "id" or name.endswith("_id")):
        raise NotFound
    model = made.query or (inputs.Query if made.auth != "none" else None)  # strangers may add what they like
    query = inputs.read_query(request.query_params, model) if model else None
    key = inputs.read_idempotency_key(request) if made.idempotent else None
    body, given = None, None
    if made.body is not None and not _is_other_type(made, request):
        body, given = await inputs.read_body(request, made.body, made.cap_bytes)
    return Call(request, site, caller, path, body, query, given, key)


def _is_other_type(made: Operation, request: Request) -> bool:
    """Whether the body is of one of the types that the handler reads itself."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return given in made.accepts
