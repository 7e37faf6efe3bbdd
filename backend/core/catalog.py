"""What models take, what they cost, how long they may run: each provider's models.toml as objects. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NoReturn

from backend.core.errors import InvalidInput, SettingsError
from backend.core.generation import Kind

CHARGES = ("free", "charged", "unknown")
PRICES = ("per_output", "per_second", "per_predict_second")  # by the list, by the film's length, by the time it runs


@dataclass(frozen=True)
class Input:
    """One input: the provider's name for it and the values it takes (empty: any text up to `max_chars`)."""

    name: str
    values: tuple[str | int, ...] = ()
    default: str | int | None = None
    max_chars: int = 10_000


@dataclass(frozen=True)
class References:
    """Where images go in: the provider's input, whether it is a list, how many, whether one is needed."""

    name: str
    list: bool = False
    max: int = 1
    required: bool = False


@dataclass(frozen=True)
class Model:
    """One model of one provider."""

    name: str
    provider: str
    kind: Kind
    cancel_after_s: int
    fallback_prompt: str
    price: Mapping[str, Any]  # one of PRICES, with what belongs to it
    inputs: Mapping[str, Input]
    references: References | None = None
    end_image: Mapping[str, Any] | None = None
    resolutions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    start_image_aspect_ratio: str | None = None
    default: bool = False
    retired: bool = False
    on_cancel: str = "unknown"  # one of CHARGES: whether a run that was stopped is billed
    on_failure: str = "unknown"  # whether one that failed is
    checked_at: date | None = None  # when and where the price and the rest were looked up
    source: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raise InvalidInput unless this model takes `value` for our field `name`."""
        known = self.inputs.get(name)
        if known is None:
            raise InvalidInput.of(name, f"{self.name} has no such setting")
        if known.values and value not in known.values:
            raise InvalidInput.of(name, f"{self.name} takes {', '.join(map(str, known.values))}")
        if isinstance(value, str) and len(value) > known.max_chars:
            raise InvalidInput.of(name, f"at most {known.max_chars} characters")

    @property
    def defaults(self) -> dict[str, Any]:
        """What is asked for when nothing is said."""
        return {ours: known.default for ours, known in self.inputs.items() if known.default is not None}

    def value(self, params: Mapping[str, Any], name: str) -> Any:
        """What the model will use for our field `name`: what was asked for, else its default."""
        known = self.inputs.get(name)
        return params.get(name, known.default if known else None)

    def build(
        self, prompt: str | None, params: Mapping[str, Any], images: Sequence[str], end: str | None
    ) -> dict[str, Any]:
        """The provider's input: its names, only what was asked for, and the references as URLs."""
        inputs: dict[str, Any] = {"prompt": prompt or self.fallback_prompt, **self.fixed}
        for ours, value in params.items():
            if ours in self.inputs:
                inputs[self.inputs[ours].name] = value
        if images and self.references:
            inputs[self.references.name] = list(images) if self.references.list else images[0]
        if end and self.end_image:
            inputs[self.end_image["name"]] = end
        return inputs

    def cost_micros(self, params: Mapping[str, Any], outputs: int = 1) -> int:
        """What so many outputs of one prediction cost, in millionths of a dollar: exact where there is a list price.

        A model that is billed by the time it runs is estimated by how long it typically does, whatever it makes.
        """
        if "per_output" in self.price:
            return round(float(self.price["per_output"]) * 1_000_000) * outputs
        if "per_predict_second" in self.price:
            return round(float(self.price["per_predict_second"]) * float(self.price["typical_s"]) * 1_000_000)
        rate = self.price["per_second"]
        per_second = rate[self.value(params, self.price["by"])] if "by" in self.price else rate
        return round(float(per_second) * int(self.value(params, "duration")) * 1_000_000) * outputs

    def billed_micros(self, predict_s: float | None) -> int | None:
        """What the provider bills for this run, however it ended; None where the list price or nothing is billed."""
        rate = self.price.get("per_predict_second")
        return None if rate is None or predict_s is None else round(float(rate) * predict_s * 1_000_000)


@dataclass(frozen=True)
class ProviderFacts:
    """Limits of a provider that are the same for all its models, and its place among the providers."""

    output_lifetime_s: int
    output_hosts: tuple[str, ...]
    file_limit_mb: int
    data_uri_limit_kb: int
    run_limit_s: int
    order: int = 100  # where several offer what was asked for, the lowest is taken, then the first by name


@dataclass(frozen=True)
class Catalog:
    """Every provider and model we know, in the order of the providers."""

    models: Mapping[tuple[str, str], Model]  # by the names of its provider and its own
    providers: Mapping[str, ProviderFacts]

    def model(self, provider: str, name: str) -> Model | None:
        """This provider's model of this name."""
        return self.models.get((provider, name))

    def offered(self, providers: Collection[str]) -> list[Model]:
        """What can be used with these providers."""
        return [one for one in self.models.values() if one.provider in providers and not one.retired]

    def choose(self, kind: Kind, name: str | None, provider: str | None, providers: Collection[str]) -> Model:
        """The model to use: the one that is named, else the default; of several the first that is offered.

        `providers` are those with a key. Raises InvalidInput when there is none, and says why.
        """
        if provider is not None and provider not in providers:
            raise InvalidInput.of("provider", "is not offered here")
        fits = [one for one in self.models.values() if one.kind == kind and provider in (None, one.provider)]
        fits = [one for one in fits if (one.name == name if name else one.default)]
        if not fits:
            raise InvalidInput.of("model", f"is not known; for this kind there are {self._names(kind)}")
        found = next((one for one in fits if not one.retired and one.provider in providers), None)
        return found or _refuse(fits)

    def default(self, kind: Kind, provider: str) -> Model | None:
        """The model of this provider that is used when none is named."""
        fits = (one for one in self.offered([provider]) if one.kind == kind and one.default)
        return next(fits, None)

    def build(
        self,
        provider: str,
        name: str,
        prompt: str | None,
        params: Mapping[str, Any],
        images: Sequence[str] = (),
        end: str | None = None,
    ) -> dict[str, Any]:
        """The provider's input for a request that may be older than this catalog. Raises InvalidInput.

        What comes out can be written as JSON: nothing of a request may fail after it was begun.
        """
        model = self.model(provider, name)
        if model is None:
            raise InvalidInput.of("model", f"{name} is not offered here any more")
        if model.retired:
            raise InvalidInput.of("model", f"{name} was retired by its provider")
        for ours, value in params.items():
            if ours in model.inputs:
                model.check(ours, value)
        try:
            inputs = model.build(prompt, params, images, end)
            json.dumps(inputs, ensure_ascii=False, allow_nan=False).encode()
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidInput.of("model", f"{name} cannot be asked for this any more") from error
        return inputs

    def _names(self, kind: Kind) -> str:
        return ", ".join(
            dict.fromkeys(one.name for one in self.models.values() if one.kind == kind and not one.retired)
        )


def _refuse(fits: list[Model]) -> NoReturn:
    """Say why none of these models can be used."""
    left = [one for one in fits if not one.retired]
    if not left:
        raise InvalidInput.of("model", "was retired by its provider")
    raise InvalidInput.of("provider", f"{left[0].provider} is not offered here: it has no key")


def parse(files: Mapping[str, str]) -> Catalog:
    """A catalog from the text of each provider's models.toml. Raises SettingsError that names file and model."""
    providers: dict[str, ProviderFacts] = {}
    models: dict[tuple[str, str], Model] = {}
    for provider, text in files.items():
        providers[provider], found = _file(provider, text)
        models |= {(provider, one.name): one for one in found}
    ranks = sorted(providers, key=lambda provider: (providers[provider].order, provider))
    sorted_models = sorted(models, key=lambda key: ranks.index(key[0]))  # stable: in each file's own order
    return Catalog({key: models[key] for key in sorted_models}, {name: providers[name] for name in ranks})


def _file(provider: str, text: str) -> tuple[ProviderFacts, list[Model]]:
    where = f"{provider}/models.toml"
    try:
        raw = tomllib.loads(text)
        facts = _provider(raw["provider"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SettingsError(f"{where}: {error}") from error
    return facts, [_named(where, provider, name, fields) for name, fields in raw.get("models", {}).items()]


def _named(where: str, provider: str, name: str, fields: dict[str, Any]) -> Model:
    try:
        return _model(provider, name, fields)
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"{where}: {name}: {error}") from error


def _model(provider: str, name: str, fields: dict[str, Any]) -> Model:
    known = {key: value for key, value in fields.items() if key not in ("inputs", "references")}
    if sum(kind in fields["price"] for kind in PRICES) != 1:
        raise ValueError(f"it needs one price of {', '.join(PRICES)}")
    if not {known.get("on_cancel", "unknown"), known.get("on_failure", "unknown")} <= {*CHARGES}:
        raise ValueError(f"on_cancel and on_failure are one of {', '.join(CHARGES)}")
    inputs = {ours: _input(one) for ours, one in fields.get("inputs", {}).items()}
    references = References(**fields["references"]) if "references" in fields else None
    return Model(name=name, provider=provider, inputs=inputs, references=references, **known)


def _input(fields: dict[str, Any]) -> Input:
    return Input(**{**fields, "values": tuple(fields.get("values", ()))})


def _provider(fields: dict[str, Any]) -> ProviderFacts:
    return ProviderFacts(**{**fields, "output_hosts": tuple(fields["output_hosts"])})
