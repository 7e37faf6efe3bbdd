"""What requests may contain: the base models of bodies and queries, and how both are checked."""

from __future__ import annotations

import re
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import pydantic
from starlette.datastructures import QueryParams
from starlette.requests import Request

from backend.core.errors import InvalidInput
from backend.logs import redact
from backend.web.calls import bodies, problems

M = TypeVar("M", bound=pydantic.BaseModel)
MOST_PARAMETERS = 100
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


class Query(pydantic.BaseModel):
    """A query: everything arrives as text, so numbers and flags are read leniently."""

    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


async def read_body(request: Request, model: type[M], cap_bytes: int) -> tuple[M, Any]:
    """Return the validated body, and its JSON value as it was given: an Idempotency-Key is compared by that.

    A body for a model without fields may be left out; then, as for `{}`, there is no value. The text is parsed twice:
    pydantic does not see a key that comes twice, and its messages differ for a value that it did not parse itself.
    """
    if model.model_fields:
        bodies.require_json_type(request)
    raw = await bodies.read(request, cap_bytes=cap_bytes)
    if not raw and not model.model_fields:
        return model(), None
    given = await bodies.check(raw)
    try:
        return model.model_validate_json(raw), given if model.model_fields else None
    except pydantic.ValidationError as error:
        raise problems.from_validation(error, where="body") from None


def read_query(params: QueryParams, model: type[M]) -> M:
    """Return the validated query. A parameter that is given twice is refused, unless the model wants a list."""
    values: dict[str, str | list[str]] = {}
    pairs = params.multi_items()
    if len(pairs) > MOST_PARAMETERS:
        raise InvalidInput.of("query", f"There are more than {MOST_PARAMETERS} parameters.")
    # Of a parameter given twice, other readers take the first, the last, or both.
    for name in params:
        given = [value for known, value in pairs if known == name]
        if "\0" in name or any("\0" in value for value in given):
            raise InvalidInput.of("query", "A parameter contains the character NUL.")
        if _wants_list(model, name):
            values[name] = given
        elif len(given) > 1:
            raise InvalidInput.of(redact(name[:400])[:200], "This parameter was given more than once.")
        else:
            values[name] = given[0]
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise problems.from_validation(error, where="query") from None


def _wants_list(model: type[pydantic.BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and _is_list(field.annotation)


def _is_list(annotation: object) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_list(part) for part in get_args(annotation))
    return annotation is list or get_origin(annotation) is list


def read_idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key, if one is given. Raises InvalidInput for two, and for a malformed one."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise InvalidInput.of("Idempotency-Key", "Give one key of 1 to 255 printable ASCII characters.")
    return given[0]
