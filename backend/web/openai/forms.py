"""Forms as the SDK writes them: every field is text, `a[b]` is the field b of a, and one part may be a file."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pydantic
from starlette.requests import Request

from backend.core.errors import InvalidInput
from backend.logs import redact
from backend.storage import Spool
from backend.web.calls import problems, uploads
from backend.web.calls.multipart import Spooled

M = TypeVar("M", bound=pydantic.BaseModel)
MOST_FIELDS = 150
_NESTED = re.compile(r"(\w{1,40})\[(.{0,200})\]", re.DOTALL)
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)


@asynccontextmanager
async def open_form(
    request: Request, spool: Spool, *, cap_bytes: int, text_bytes: int, file: str
) -> AsyncIterator[tuple[dict[str, Any], Spooled | None]]:
    """Yield the texts, and the part named `file` if it is a file. Raises as uploads.open_form, and InvalidInput."""
    opened = uploads.open_form(request, spool, cap_bytes=cap_bytes, fields=MOST_FIELDS, text_bytes=text_bytes)
    async with opened as parts:
        values: dict[str, Any] = {}
        found: Spooled | None = None
        for name, value in parts:
            if isinstance(value, str):
                _put(values, name, value)
            elif name == file:
                found = value
            else:
                raise InvalidInput.of(_shown(name), f"A file is taken as '{file}' only.")
        yield values, found


def _put(values: dict[str, Any], name: str, text: str) -> None:
    if "\0" in name or "\0" in text:
        raise InvalidInput.of("body", "A text contains the character NUL.")
    nested = _NESTED.fullmatch(name)
    place, key = (values.setdefault(nested[1], {}), nested[2]) if nested else (values, name)
    if not isinstance(place, dict) or key in place:
        raise InvalidInput.of(_shown(name), "This field was given more than once.")
    place[key] = text


def _shown(name: str) -> str:
    return redact(name[:400])[:200]


def validated(model: type[M], values: dict[str, Any], whole: frozenset[str]) -> M:
    """Return the form as the model. The fields in `whole` are numbers. Raises InvalidInput."""
    read = {name: int(text) if name in whole and _is_whole(text) else text for name, text in values.items()}
    try:
        return model.model_validate(read)
    except pydantic.ValidationError as error:
        raise problems.from_validation(error, where="body") from None


def _is_whole(text: object) -> bool:
    return isinstance(text, str) and _WHOLE.fullmatch(text) is not None
