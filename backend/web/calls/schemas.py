"""The JSON schemas of all models that operations take and give, each named once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pydantic
from pydantic.json_schema import models_json_schema

Schema = dict[str, Any]
Model = type[pydantic.BaseModel]
Mode = Literal["validation", "serialization"]


class FieldError(pydantic.BaseModel):
    """One thing that is wrong with a request."""

    field: str
    message: str


class ProblemView(pydantic.BaseModel):
    """Why a request was not answered (RFC 9457). Programs read `code`, people read `detail`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None
    errors: list[FieldError] | None = None


class Schemas:
    """The schema of every model: a reference to it, and the definitions that references lead to."""

    def __init__(self, taken: Iterable[Model], given: Iterable[Model]) -> None:
        wanted: list[tuple[Model, Mode]] = [(model, "validation") for model in dict.fromkeys(taken)]
        wanted += [(model, "serialization") for model in dict.fromkeys(given)]
        self._references, whole = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
        self.definitions: Schema = whole.get("$defs", {})

    def taken(self, model: Model) -> Schema:
        """Return a reference to what a request must look like."""
        return self._references[(model, "validation")]

    def given(self, model: Model) -> Schema:
        """Return a reference to what an answer looks like."""
        return self._references[(model, "serialization")]

    def drop_queries(self, models: Sequence[Model]) -> Mapping[Model, list[Schema]]:
        """Return the parameters of the query models, and drop their definitions, which nothing refers to."""
        names = {model: self.taken(model)["$ref"].rpartition("/")[2] for model in dict.fromkeys(models)}
        return {model: _parameters(self.definitions.pop(name)) for model, name in names.items()}


def _parameters(schema: Schema) -> list[Schema]:
    required = schema.get("required", [])
    return [_parameter(name, field, name in required) for name, field in schema.get("properties", {}).items()]


def _parameter(name: str, field: Schema, required: bool) -> Schema:
    """Return one parameter of a query. A parameter is absent rather than null: a query cannot say null."""
    described = {key: value for key, value in field.items() if key not in ("title", "description")}
    kinds = [kind for kind in described.pop("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        described |= kinds[0]
    elif kinds:
        described["anyOf"] = kinds
    if described.get("default", 0) is None:
        del described["default"]
    shown = {"name": name, "in": "query", "required": required, "schema": described}
    return shown | ({"description": field["description"]} if "description" in field else {})
