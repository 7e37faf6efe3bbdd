"""A decorator that makes a handler an operation: what it takes, what it answers, and who may use it.

    @operation("POST", "/api/v2/campaigns", body=CampaignInput, answers={201: CampaignView})
    async def create_campaign(call: Call) -> Response: ...

`answering` checks each request against its operation: who asks, how often, and what. In this order nobody without a key
can make the service read a body.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

import pydantic
from starlette.requests import Request
from starlette.responses import Response

from backend.context import Context
from backend.core.people import Caller
from backend.web.callers.limits import Limited
from backend.web.calls import bodies
from backend.web.calls.site import Site

Auth = Literal["key", "admin", "none", "media"]
Handler = Callable[["Call"], Awaitable[Response]]
WRITING = ("POST", "PUT", "PATCH", "DELETE")
# What an answer looks like: a model, a media type such as "video/mp4", or nothing.
AnswerModel = type[pydantic.BaseModel] | str | None


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was checked, with all that a handler needs.

    `body` and `query` are instances of the operation's models. `given` is the JSON value of the body as it came.
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
        """The context that every step needs."""
        return self.site.ctx

    @property
    def who(self) -> Caller:
        """The caller, for operations that always have one."""
        assert self.caller is not None
        return self.caller


class Options(TypedDict, total=False):
    """What an operation may promise besides its answers. The defaults are those of `Operation`."""

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
    """What a route promises: what it takes, what it answers, and who may use it."""

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
        """The handler's name, which is the operationId."""
        return str(getattr(self.handler, "__name__", "operation"))

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters in the path, in their order."""
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
