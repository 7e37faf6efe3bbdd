"""Input is checked against a model's JSON schema, and the refusal names every wrong field."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from backend.emulator.kit.refusals import WrongField, invalid_fields
from backend.emulator.replicate.models import Model, Schema

_TYPES: dict[str, type] = {"string": str, "integer": int, "array": list}


def check_input(model: Model, given: dict[str, Any]) -> None:
    """Raises a 422 Refusal."""
    missing = [name for name in model.required if given.get(name) is None]
    wrong = [WrongField("required", f"input.{name}", f"{name} is required") for name in missing]
    for name, value in given.items():
        wrong += _check_property(name, value, model.properties.get(name))
    if wrong:
        raise invalid_fields(wrong)


def _check_property(name: str, value: Any, schema: Schema | None) -> list[WrongField]:
    field = f"input.{name}"
    if schema is None:
        description = f"Additional property {name} is not allowed"
        return [WrongField("additional_property_not_allowed", field, description)]
    if value is None and (schema.get("nullable") or "default" not in schema):
        return []  # a required one that is null is reported as missing
    return _check_value(field, name, value, schema)


def _check_value(field: str, name: str, value: Any, schema: Schema) -> list[WrongField]:
    wanted = schema["type"]
    fits: bool = isinstance(value, _TYPES[wanted])
    if not fits or isinstance(value, bool):
        return [WrongField("invalid_type", field, f"Invalid type. Expected: {wanted}")]
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(f'"{choice}"' for choice in schema["enum"])
        return [WrongField("enum", field, f"{name} must be one of the following: {choices}")]
    if schema.get("format") == "uri" and not _is_uri(value):
        return [WrongField("format", field, "Does not match format 'uri'")]
    if wanted == "array":
        checked = [_check_value(f"{field}.{i}", name, item, schema["items"]) for i, item in enumerate(value)]
        return [wrong for found in checked for wrong in found]
    return []


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text[:2048])
    except ValueError:
        return False
    return parts.scheme == "data" or (parts.scheme in ("http", "https") and bool(parts.netloc))
