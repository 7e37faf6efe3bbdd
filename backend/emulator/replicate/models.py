"""The emulated models with the JSON schema of their input, as the real model pages published them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

Schema = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """One official model; `properties` is its input as JSON schema, order included."""

    owner: str
    name: str
    kind: Literal["image", "video"]
    description: str
    required: tuple[str, ...]
    properties: dict[str, Schema]

    @property
    def slug(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def version(self) -> str:
        """64 hex digits, stable; predictions of official models show "hidden" instead."""
        return sha256(self.slug.encode()).hexdigest()


NANO_BANANA = Model(
    owner="google",
    name="nano-banana",
    kind="image",
    description="Makes an image from a prompt, or edits images by one.",
    required=("prompt",),
    properties={
        "prompt": {"type": "string", "description": "What the image shows"},
        "image_input": {
            "type": "array",
            "items": {"type": "string", "format": "uri"},
            "default": [],
            "description": "Images to change or to take as a reference",
        },
        "aspect_ratio": {
            "type": "string",
            "enum": [
                *("match_input_image", "1:1", "2:3", "3:2", "3:4", "4:3"),
                *("4:5", "5:4", "9:16", "16:9", "21:9"),
            ],
            "default": "match_input_image",
        },
        "output_format": {"type": "string", "enum": ["jpg", "png"], "default": "jpg"},
    },
)

KLING = Model(
    owner="kwaivgi",
    name="kling-v2.1",
    kind="video",
    description="Moves a start image by a prompt, for 5 or 10 seconds.",
    required=("prompt", "start_image"),
    properties={
        "prompt": {"type": "string", "description": "What happens in the video"},
        "start_image": {"type": "string", "format": "uri", "description": "The first frame"},
        "mode": {
            "type": "string",
            "enum": ["standard", "pro"],
            "default": "standard",
            "description": "720p, or 1080p",
        },
        "duration": {"type": "integer", "enum": [5, 10], "default": 5, "description": "Seconds"},
        "negative_prompt": {"type": "string", "default": "", "description": "What to avoid"},
        "end_image": {
            "type": "string",
            "format": "uri",
            "nullable": True,
            "description": "The last frame; pro mode only",
        },
    },
)

MODELS = {model.slug: model for model in (NANO_BANANA, KLING)}


def find_version(version: str) -> Model | None:
    """`owner/name`, `owner/name:hex` or the bare 64 hex digits."""
    slug, _, digits = version.partition(":")
    if slug in MODELS and digits in ("", MODELS[slug].version):
        return MODELS[slug]
    return next((model for model in MODELS.values() if model.version == version), None)


def describe(model: Model, origin: str) -> dict[str, Any]:
    """The model object of `GET /models/{owner}/{name}`."""
    return {
        "url": f"{origin}/{model.slug}",
        "owner": model.owner,
        "name": model.name,
        "description": model.description,
        "visibility": "public",
        "is_official": True,
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": 0,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": {
            "id": model.version,
            "created_at": "2026-01-01T00:00:00.000000Z",
            "cog_version": "0.16.12",
            "openapi_schema": openapi(model),
        },
    }


def openapi(model: Model) -> dict[str, Any]:
    """The version's schema: what a client reads is at components.schemas.Input."""
    properties = {
        name: {"title": name, "x-order": order, **schema}
        for order, (name, schema) in enumerate(model.properties.items())
    }
    inputs = {
        "type": "object",
        "title": "Input",
        "required": list(model.required),
        "properties": properties,
    }
    output = {"type": "string", "title": "Output", "format": "uri"}
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {},
        "components": {"schemas": {"Input": inputs, "Output": output}},
    }
