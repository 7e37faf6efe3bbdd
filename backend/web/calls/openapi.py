"""The OpenAPI 3.1 description. It is made from the operations: what is documented is what is checked."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from backend import __version__
from backend.core.errors import Problem
from backend.web.calls import auth
from backend.web.calls.operation import AnswerModel, Operation
from backend.web.calls.problems import DIALECTS, OURS, Dialect, dialect
from backend.web.calls.schemas import Model, Schema, Schemas

_ABOUT = (
    "Generate images and videos with AI providers. Nothing accepted is lost, nothing is paid twice. "
    "Every error is application/problem+json; programs read its `code`."
)
_SECURITY_SCHEMES = {
    **{way.name: way.scheme for way in auth.WAYS},
    "signedUrl": {"type": "apiKey", "in": "query", "name": "sig", "description": "A URL this service signed"},
}
_BY_KEY: list[dict[str, list[str]]] = [{way.name: []} for way in auth.WAYS]
_SECURITY: Mapping[str, list[dict[str, list[str]]]] = {
    "key": _BY_KEY,
    "admin": _BY_KEY,
    "media": [*_BY_KEY, {"signedUrl": []}],
    "none": [],
}
_HEADERS: dict[str, Schema] = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "Finds this request in the logs"},
    "Location": {"schema": {"type": "string"}, "description": "Where the new thing is"},
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait before trying again"},
    "Idempotent-Replayed": {"schema": {"type": "string", "enum": ["true"]}, "description": "Answered before"},
    "RateLimit-Limit": {"schema": {"type": "integer"}, "description": "Requests this key may make"},
    "RateLimit-Remaining": {"schema": {"type": "integer"}, "description": "Requests left"},
    "RateLimit-Reset": {"schema": {"type": "integer"}, "description": "Seconds until there is room again"},
    "RateLimit-Policy": {"schema": {"type": "string"}, "description": "Requests and the window in seconds"},
}
_TITLES = {kind.status: kind.title for kind in sorted(Problem.__subclasses__(), key=lambda kind: kind.status)}
_TITLES[Problem.status] = Problem.title
_UNSAID = {"text/event-stream"}  # OpenAPI 3.1 cannot say what an event looks like; readers take a schema for that
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body give the same answer again; nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the whole description. `servers` is relative, so it is right at every address."""
    shown = [made for made in operations if made.in_schema]
    queries = [made.query for made in shown if made.query]
    schemas = Schemas(
        [*(made.body for made in shown if made.body), *queries],
        [
            *(answer for made in shown for answer in made.answers.values() if isinstance(answer, type)),
            *(spoken.view for spoken in (OURS, *DIALECTS.values())),
        ],
    )
    parameters = schemas.drop_queries(queries)
    paths: dict[str, dict[str, Any]] = {}
    for made in shown:
        paths.setdefault(made.path, {})[made.method.lower()] = _operation(made, schemas, parameters)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Reelhook", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(tag for made in shown for tag in made.tags)],
        "paths": paths,
        "components": _components(schemas),
    }


def _components(schemas: Schemas) -> Schema:
    problems = {
        f"{spoken.name}{status}": _problem(spoken, status, schemas)
        for spoken in (OURS, *DIALECTS.values())
        for status in dict.fromkeys(map(spoken.status, _TITLES))
    }
    definitions = dict(sorted(schemas.definitions.items()))
    return {
        "schemas": definitions,
        "headers": _HEADERS,
        "responses": problems,
        "securitySchemes": _SECURITY_SCHEMES,
    }


def document_bytes(operations: Sequence[Operation]) -> bytes:
    """Return the description as it is served."""
    return json.dumps(document(operations), indent=1).encode()


def _operation(made: Operation, schemas: Schemas, queries: Mapping[Model, list[Schema]]) -> Schema:
    summary, _, description = (inspect.getdoc(made.handler) or made.name).partition("\n")
    shown: Schema = {
        "operationId": made.name,
        "summary": summary.rstrip("."),
        "tags": list(made.tags),
        "security": _SECURITY[made.auth],
        "parameters": [_path_parameter(name) for name in made.parameters],
        "responses": {str(status): _answer(made, status, kind, schemas) for status, kind in made.answers.items()},
    }
    if description.strip():
        shown["description"] = description.strip()
    if made.query:
        shown["parameters"] += queries[made.query]
    if made.idempotent:
        shown["parameters"].append(_IDEMPOTENCY_KEY)
    if made.body or made.accepts:
        required = made.body is None or bool(made.body.model_fields)
        shown["requestBody"] = {"required": required, "content": _body(made, schemas)}
    spoken = dialect(made.path)
    for status in sorted(set(map(spoken.status, _error_statuses(made))) - set(made.answers)):
        shown["responses"][str(status)] = {"$ref": f"#/components/responses/{spoken.name}{status}"}
    return shown


def _path_parameter(name: str) -> Schema:
    is_id = name == "id" or name.endswith("_id")
    schema = {"type": "string", "format": "uuid"} if is_id else {"type": "string"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _body(made: Operation, schemas: Schemas) -> Schema:
    content: Schema = {"application/json": {"schema": schemas.taken(made.body)}} if made.body else {}
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"file": file}, "required": ["file"], "additionalProperties": False}
    form = dict(made.form) if made.form else form
    return content | {media_type: {"schema": form} for media_type in made.accepts}


def _answer(made: Operation, status: int, kind: AnswerModel, schemas: Schemas) -> Schema:
    names = ["X-Request-Id"]
    names += ["Location"] if status in (201, 202) else []
    names += ["Idempotent-Replayed"] if made.idempotent else []
    names += [name for name in _HEADERS if name.startswith("RateLimit")] if made.limit else []
    shown: Schema = {"description": HTTPStatus(status).phrase, "headers": _references(names)}
    if isinstance(kind, str):
        shown["content"] = {kind: {} if kind in _UNSAID or kind.endswith("json") else {"schema": {"type": "string"}}}
    elif kind is not None:
        shown["content"] = {"application/json": {"schema": schemas.given(kind)}}
        shown["content"] |= {other: {"schema": {"type": "string"}} for other in made.gives if status == 200}
    return shown


def _error_statuses(made: Operation) -> set[int]:
    """Return every status of a refusal: those that can come before the handler, and those it announced."""
    found = {*made.errors, 500}
    found |= set() if made.auth == "none" else {401, 422, 429, 503}
    found |= {403} if made.auth in ("admin", "media") else set()
    found |= {404} if made.parameters else set()
    found |= {400, 408, 413, 415, 422} if made.body or made.accepts else set()
    found |= {409} if made.idempotent else set()
    return found


def _problem(spoken: Dialect, status: int, schemas: Schemas) -> Schema:
    """Return the description of an error. Only statuses after which waiting helps carry Retry-After."""
    names = ["X-Request-Id", *(["Retry-After"] if status in (429, 503, 507) else [])]
    content = {spoken.media_type: {"schema": schemas.given(spoken.view)}}
    return {"description": _TITLES[status], "headers": _references(names), "content": content}


def _references(names: Sequence[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
