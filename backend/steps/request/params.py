"""The options of a request, checked against what its model takes. Pure."""

from __future__ import annotations

from typing import Any

from backend.core.errors import InvalidInput
from backend.core.generation import SOURCE_NAMES
from backend.core.models import Model
from backend.core.requests import GenerationRequest
from backend.core.roles import conflict

_OPTIONS = ("aspect_ratio", "duration", "mode", "resolution", "negative_prompt", "seed")


def checked(model: Model, wanted: GenerationRequest, source: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a request with the model's defaults. Raises InvalidInput for what the model does not take.

    A resolution that the model knows by other inputs, such as a mode, sets those inputs.
    """
    chosen = {name: value for name in _OPTIONS if (value := getattr(wanted, name, None)) is not None}
    if (resolution := chosen.get("resolution")) is not None:
        _choose_size(model, chosen, resolution)
    makes_start_image = model.makes_start_image and not images(source)
    for name, value in chosen.items():
        # A seed is kept for models that take none. Where a start image is made, it gets the aspect ratio.
        is_optional = name in ("seed", "resolution") and name not in model.inputs
        if not is_optional and not (name == "aspect_ratio" and makes_start_image):
            model.check(name, value)
    if wanted.prompt is not None:
        model.check("prompt", wanted.prompt)
    params = model.defaults | chosen
    _check_roles(model, source, params)
    return params


def _choose_size(model: Model, chosen: dict[str, Any], resolution: str) -> None:
    """Set the inputs that make this resolution, unless others were chosen."""
    implied = model.sizes.get(resolution)
    if implied is None:
        known = ", ".join(model.sizes) or "none"
        raise InvalidInput.of("resolution", f"{model.name} takes {known}")
    if any(chosen.setdefault(name, value) != value for name, value in implied.items()):
        raise InvalidInput.of("resolution", "does not go with the mode")


def images(source: dict[str, Any]) -> int:
    """Return how many files the generation starts from."""
    return sum(name in source for name in SOURCE_NAMES)


def _check_roles(model: Model, source: dict[str, Any], params: dict[str, Any]) -> None:
    given = model.given(source)
    if "last_frame" in given and "last_frame" not in model.references:
        raise InvalidInput.of("end_image", f"{model.name} takes none")
    if model.start in given and not images(source) and not model.makes_start_image:
        raise InvalidInput.of("image_id", f"{model.name} starts from an image")
    if found := conflict(model.references, given, model.facts(params, source)):
        name, why = found
        if name not in given:
            raise InvalidInput.of("model", f"{model.name} needs a reference of the role {name}")
        raise InvalidInput.of(given[name], why)


def check_numbers(model: Model, source: dict[str, Any]) -> None:
    """Raise InvalidInput when there are more files to start from than the model takes."""
    most = model.references[model.start].most if model.start else 0
    if most is not None and images(source) > most:
        given = [name for name in SOURCE_NAMES if name in source]
        raise InvalidInput.of(given[-1], f"{model.name} starts from at most {most} image{'s' * (most != 1)}")
