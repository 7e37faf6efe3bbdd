"""One decorator makes a handler a route: it authenticates, limits, validates and documents.

    @operation("POST", "/api/v2/campaigns", body=CampaignInput, answers={201: CampaignView})
    async def create_campaign(call: Call) -> Response: ...

The order for every request: who is asking, how often, what is asked. So nobody without a key makes
the service read a body.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

import pydantic
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from backend.context import Context
from backend.core.errors import Forbidden, NotFound
from backend.core.ids import is_id
from backend.core.people import Caller
from backend.web.callers import limits
from backend.web.callers.limits import Limited
from backend.web.calls import auth, bodies, inputs
from backend.web.calls.site import Site

Auth = Literal["key", "admin", "none", "media"]
Handler = Callable[["Call"], Awaitable[Response]]
WRITING = ("POST", "PUT", "PATCH", "DELETE")
# What an answer looks like: a model, a media type such as "video/mp4", or nothing.
AnswerModel = type[pydantic.BaseModel] | str | None


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked: what a handler needs and nothing it has to check again.

    `body` and `query` are instances of the operation's models, `given` is the JSON value of
    the body as it came.
    """

    request: Request
    site: Site
    caller: Caller | None
    path: dict[str, str]
    body: Any = None
    query: Any = None
    given: Any = None
    idempotency_key: str | None = None

    @property
    def ctx(self) -> Context:
        """The context every step gets."""
        return self.site.ctx

    @property
    def who(self) -> Caller:
        """The caller of an operation that always has one."""
        assert self.caller is not None
        return self.caller


class Options(TypedDict, total=False):
    """What an operation may promise besides its answers; the defaults are those of `Operation`."""

    body: type[pydantic.BaseModel] | None
    query: type[pydantic.BaseModel] | None
    auth: Auth
    tags: Sequence[str]
    limit: Limited | None
    is_write: bool | None
    cap_bytes: int
    in_schema: bool
    accepts: Sequence[str]
    form: Mapping[str, Any] | None
    gives: Sequence[str]
    errors: Sequence[int]


@dataclass(frozen=True, slots=True)
class Operation:
    """A route's promise: what it takes, what it answers, who may use it."""

    method: str
    path: str
    handler: Handler
    answers: Mapping[int, AnswerModel]
    idempotent: bool
    head: bool
    body: type[pydantic.BaseModel] | None = None
    query: type[pydantic.BaseModel] | None = None
    auth: Auth = "key"
    tags: Sequence[str] = ()
    limit: Limited | None = None
    is_write: bool | None = None
    cap_bytes: int = bodies.CAP_BYTES
    in_schema: bool = True
    accepts: Sequence[str] = ()
    form: Mapping[str, Any] | None = None
    gives: Sequence[str] = ()
    errors: Sequence[int] = ()
    limits: tuple[Limited, ...] = field(init=False)  # what a request counts for

    def __post_init__(self) -> None:
        writes = self.method in WRITING if self.is_write is None else self.is_write
        kinds: tuple[Limited | None, ...] = ("write" if writes else None, self.limit)
        object.__setattr__(self, "limits", tuple(kind for kind in kinds if kind is not None))

    @property
    def name(self) -> str:
        """The handler's name: the operationId."""
        return str(getattr(self.handler, "__name__", "operation"))

    @property
    def parameters(self) -> list[str]:
        """The names in the path, in order."""
        return re.findall(r"{(\w+)(?::\w+)?}", self.path)


OPERATIONS: list[Operation] = []


def operation(
    method: str,
    path: str,
    *,
    answers: Mapping[int, AnswerModel],
    idempotent: bool | None = None,
    head: bool = True,
    into: list[Operation] | None = None,
    **options: Unpack[Options],
) -> Callable[[Handler], Handler]:
    """Register a handler for a method and path.

    `idempotent` (every POST with a caller, unless said otherwise) reads Idempotency-Key. `head` lets
    HEAD ask what GET answers. `is_write` says whether it counts as a write, where the method does not. `accepts`
    names further media types of the body, which the handler reads itself; `form` is the JSON schema of a form that
    is more than one file. `gives` names further media types of the answer 200. `errors` are documented statuses
    beyond those every operation of its kind has.
    Path parameters whose names are `id` or end in `_id` must be ids, or the answer is 404.
    """
    repeatable = method == "POST" and options.get("auth") != "none" if idempotent is None else idempotent

    def register(handler: Handler) -> Handler:
        made = Operation(method, path, handler, answers, repeatable, head and method == "GET", **options)
        (OPERATIONS if into is None else into).append(made)
        return handler

    return register


def routes(operations: Sequence[Operation]) -> list[Route]:
    """Flat routes, one a path, so that 405 names every method; fixed words before parameters."""
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

    route = Route(path, endpoint, methods=list(by_method), name=path)
    route.methods = set(by_method)  # Starlette adds HEAD to every GET, event streams included
    return route


async def run(made: Operation, request: Request) -> Response:
    """Answer one request: caller, rate, input, handler, in this order."""
    site: Site = request.app.state.site
    site.lookout.look(request.scope)
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
    """Whether the body is one of the further types the handler reads itself."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return given in made.accepts
