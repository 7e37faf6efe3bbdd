"""Read the catalog from the text of each provider's models.toml; docs/models.md tells the format. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from backend.core.catalog import Catalog, ProviderFacts
from backend.core.catalog_checks import mistakes
from backend.core.catalog_price_checks import mistakes_of_prices
from backend.core.errors import SettingsError
from backend.core.inputs import type_of
from backend.core.models import Model

T = TypeVar("T")


def parse(files: Mapping[str, str]) -> Catalog:
    """Return the catalog of these texts, which are by provider. Raises SettingsError that names file and model."""
    providers: dict[str, ProviderFacts] = {}
    models: dict[tuple[str, str], Model] = {}
    for provider, text in files.items():
        providers[provider], found = _file(provider, text)
        models |= {(provider, one.name): one for one in found}
    ranks = sorted(providers, key=lambda provider: (providers[provider].order, provider))
    in_order = sorted(models, key=lambda key: ranks.index(key[0]))  # stable: within a file as they stand there
    return Catalog({key: models[key] for key in in_order}, {name: providers[name] for name in ranks})


def _file(provider: str, text: str) -> tuple[ProviderFacts, list[Model]]:
    where = f"{provider}/models.toml"
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where}: {error}") from error
    if odd := {*raw} - {"provider", "models"}:
        raise SettingsError(f"{where}: has [{min(odd)}], and only [provider] and [models] are known")
    facts = _read(ProviderFacts, raw.get("provider", {}), f"{where}: provider")
    if not isinstance(entries := raw.get("models", {}), dict):
        raise SettingsError(f"{where}: [models] is a table")
    models = [_model(provider, name, fields, f"{where}: {name}") for name, fields in entries.items()]
    _check_defaults(models, where)
    return facts, models


def _check_defaults(models: list[Model], where: str) -> None:
    """Raise SettingsError when a provider has two defaults of one kind: the order in the file must not decide."""
    for number, one in enumerate(models):
        if one.default and any(one.kind == other.kind for other in models[:number] if other.default):
            raise SettingsError(f"{where}: {one.name}: is the second default for {one.kind}s")


def _model(provider: str, name: str, fields: dict[str, Any], where: str) -> Model:
    try:
        told = {"prompt": {"path": "prompt"}, **fields.get("inputs", {})}
        inputs = {ours: _with_values(one) for ours, one in told.items()}
        references = {role: _with_condition(one) for role, one in fields.get("references", {}).items()}
        prices = [_with_condition(one) for one in fields.get("prices", [])]
    except (AttributeError, TypeError) as error:
        raise SettingsError(f"{where}: the model, and each of its inputs, references and prices, are tables") from error
    if odd := {*fields} & {"name", "provider"}:
        raise SettingsError(f"{where}: {min(odd)}: is said by the table's name and the folder's")
    read = {**fields, "inputs": inputs, "references": references, "prices": prices, "name": name, "provider": provider}
    model = _read(Model, read, where)
    if found := next(chain(mistakes(model), mistakes_of_prices(model)), None):
        raise SettingsError(f"{where}: {found}")
    return model


def _with_values(fields: dict[str, Any]) -> dict[str, Any]:
    """Return an input's fields with its values as a table of ours and theirs, and with their type."""
    values = fields.get("values")
    if isinstance(values, list) and values:
        return {"type": type_of(values), **fields, "values": {one: one for one in values}}
    if isinstance(values, dict) and fields.get("type", "text") != "text":
        return {**fields, "values": {_typed(ours): theirs for ours, theirs in values.items()}}
    return fields


def _with_condition(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with each value of `when` as a list of those that fulfil it."""
    when = {**fields.get("when", {})}
    when |= {f"references.{role}": value for role, value in when.pop("references", {}).items()}
    listed = {name: value if isinstance(value, list) else [value] for name, value in when.items()}
    return {**fields, "when": listed}


def _typed(key: str) -> Any:
    """Return a key of TOML, which is always text, as the number or boolean that it spells."""
    try:
        return json.loads(key)
    except ValueError:
        return key


def _read(shape: type[T], fields: Mapping[str, Any], where: str) -> T:
    try:
        return TypeAdapter(shape).validate_python(fields)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{where}: {place}: {first['msg']}") from wrong
