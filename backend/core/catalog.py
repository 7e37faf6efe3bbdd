"""Every model of every provider, and which of them a request gets. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import StrictInt

from backend.core.errors import InvalidInput
from backend.core.generation import Kind
from backend.core.inputs import CLOSED
from backend.core.models import Model


@dataclass(frozen=True)
class ProviderFacts:
    """Limits of a provider that are the same for all its models, and its rank among the providers."""

    __pydantic_config__ = CLOSED

    output_lifetime_s: StrictInt
    output_hosts: tuple[str, ...]
    file_limit_mb: StrictInt
    data_uri_limit_kb: StrictInt
    run_limit_s: StrictInt
    order: StrictInt = 100  # where several offer what was asked for, the lowest is taken, then the first by name


@dataclass(frozen=True)
class Catalog:
    """Every provider and model that we know, in the order of the providers."""

    models: Mapping[tuple[str, str], Model]  # by the names of its provider and its own
    providers: Mapping[str, ProviderFacts]

    def model(self, provider: str, name: str) -> Model | None:
        """Return this provider's model of this name; None when we do not know it, or know it no longer."""
        return self.models.get((provider, name))

    def offered(self, providers: Collection[str]) -> list[Model]:
        """Return the models that can be used with these providers."""
        return [one for one in self.models.values() if one.provider in providers and not one.retired]

    def choose(self, kind: Kind, name: str | None, provider: str | None, providers: Collection[str]) -> Model:
        """Return the model to use: the one that is named, else the default; of several the first that is offered.

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
        """Return the model of this provider that is used when a request names none."""
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
        """Return the provider's input for a request. Raises InvalidInput.

        The request may be older than this catalog, whose models change with each release: so it is checked again here.
        The input can be written as JSON, so that nothing fails after the row has become `submitting`.
        """
        model = self.model(provider, name)
        if model is None:
            raise InvalidInput.of("model", f"{name} is not offered here any more")
        if model.retired:
            raise InvalidInput.of("model", f"{name} was retired by its provider")
        for ours, value in {**params, "prompt": prompt or model.fallback_prompt}.items():
            if ours in model.inputs:
                model.check(ours, value)
        try:
            references = {"last_frame": [end] if end else [], **({model.start: images} if model.start else {})}
            inputs = model.build(prompt, params, references)
            json.dumps(inputs, ensure_ascii=False, allow_nan=False).encode()
        except (KeyError, TypeError, ValueError, RecursionError) as error:  # an older version accepted the request
            raise InvalidInput.of("model", f"{name} cannot be asked for this any more") from error
        return inputs

    def _names(self, kind: Kind) -> str:
        return ", ".join(
            dict.fromkeys(one.name for one in self.models.values() if one.kind == kind and not one.retired)
        )


def _refuse(fits: list[Model]) -> NoReturn:
    """Raise InvalidInput that says why none of these models can be used."""
    left = [one for one in fits if not one.retired]
    if not left:
        raise InvalidInput.of("model", "was retired by its provider")
    raise InvalidInput.of("provider", f"{left[0].provider} is not offered here: it has no key")
