"""What clients of OpenAI ask for, turned into requests of Reelhook.

Their own fields are taken as they are. A field without meaning here (`quality`, `style`, ...) is read and ignored. What
would silently give something else than was asked for (`stream`, a transparent background) is refused.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from backend.context import Context
from backend.core.errors import InvalidInput
from backend.core.generation import Kind
from backend.core.models import Model, shorter_side
from backend.core.requests import Id, ImageReference, ImageRequest, ShortText, Strict, Text, Url, VideoRequest
from backend.steps import request

MOST_COPIES = 4
REFERENCE_BYTES = 12 << 20  # of a request with a picture as text in it
_THEIRS = ("gpt-image", "chatgpt-image", "dall-e", "sora")  # a model of theirs means our default of the kind
Size = Annotated[str, StringConstraints(pattern=r"^([1-9]\d{0,4}x[1-9]\d{0,4}|auto)$")]
_OURS = (
    "client_id",
    "prompt",
    "asset_id",
    "image_id",
    "video_id",
    "frame",
    "provider",
    "aspect_ratio",
    "seed",
    "webhook_url",
    "metadata",
)
_OURS_OF_VIDEOS = ("duration", "mode", "resolution", "negative_prompt", "end_image")


class Asked(Strict):
    """What images and videos have in common; all but `prompt`, `model`, `size` and `user` are Reelhook's own."""

    prompt: Text = Field(description="what to make")
    model: ShortText | None = Field(None, description="a model of Reelhook; OpenAI's own names mean the default")
    size: Size | None = Field(None, description="such as 1536x1024: the nearest shape the model makes")
    user: str | None = Field(None, max_length=1000, description="without effect")
    campaign_id: Id | None = Field(None, description="else the header X-Campaign-Id, else the key's own")
    client_id: Id | None = None
    asset_id: Id | None = None
    image_id: Id | None = None
    video_id: Id | None = None
    frame: Literal["first", "last"] | None = None
    provider: ShortText | None = None
    aspect_ratio: Annotated[str, StringConstraints(pattern=r"^(\d{1,2}:\d{1,2}|match_input_image)$")] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    webhook_url: Url | None = None
    metadata: dict[str, str] | None = None


class ImageBody(Asked):
    """The body of images.generate."""

    n: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = Field(None, description="how many images")
    response_format: Literal["url", "b64_json"] | None = Field(None, description="b64_json unless said otherwise")
    background: Literal["opaque", "auto"] | None = Field(None, description="without effect")
    moderation: Literal["low", "auto"] | None = Field(None, description="without effect")
    output_format: Literal["png", "jpeg", "webp"] | None = Field(None, description="without effect; the answer says it")
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="without effect")
    quality: ShortText | None = Field(None, description="without effect")
    complexity: ShortText | None = Field(None, description="without effect")
    style: ShortText | None = Field(None, description="without effect")
    safety_identifier: str | None = Field(None, max_length=1000, description="without effect")
    stream: Literal[False] | None = Field(None, description="images are not streamed")
    partial_images: Literal[0] | None = Field(None, description="images are not streamed")


class Reference(Strict):
    """A picture that is fetched, or written as a data URL; or an asset by its id."""

    image_url: Annotated[str, StringConstraints(min_length=8, max_length=REFERENCE_BYTES)] | None = None
    file_id: Id | None = Field(None, description="the id of an asset")

    @model_validator(mode="after")
    def _exactly_one(self) -> Reference:
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("give either image_url or file_id")
        return self


class VideoBody(Asked):
    """The body of videos.create; as a form every field is text, and `input_reference` a file or a reference."""

    seconds: (
        Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,2}$")] | Annotated[int, Field(ge=1, le=999)] | None
    ) = Field(None, description="the nearest length the model makes")
    input_reference: Reference | None = Field(None, description="the picture it starts from")
    duration: Annotated[int, Field(ge=1, le=60)] | None = None
    mode: ShortText | None = None
    resolution: ShortText | None = None
    negative_prompt: Text | None = None
    end_image: ImageReference | None = None


def image(ctx: Context, body: ImageBody, campaign_id: str) -> ImageRequest:
    """Return the request for images. Raises InvalidInput."""
    fields, model = _common(ctx, "image", body, campaign_id)
    if body.size and not body.aspect_ratio:
        fields |= _shape(model, body.size)
    copies = {"copies": body.n} if body.n and body.n > 1 else {}
    return ImageRequest.model_validate(fields | copies)


def video(ctx: Context, body: VideoBody, campaign_id: str, asset_id: str | None = None) -> VideoRequest:
    """Return the request for a video, from `asset_id` if a picture came with it. Raises InvalidInput."""
    fields, model = _common(ctx, "video", body, campaign_id)
    fields |= {name: value for name in _OURS_OF_VIDEOS if (value := getattr(body, name)) is not None}
    if asset_id is not None:
        if body.asset_id is not None:
            raise InvalidInput.of("input_reference", "give either this or asset_id")
        fields["asset_id"] = asset_id
    if body.seconds and body.duration is None:
        fields["duration"] = _nearest_length(model, int(body.seconds))
    if body.size and not (body.mode or body.resolution):
        fields |= _resolution(model, body.size)
    if not any(fields.get(name) for name in ("asset_id", "image_id", "video_id")):
        fields |= _shape_of_start(ctx, model, body)
    return VideoRequest.model_validate(fields)


def _common(ctx: Context, kind: Kind, body: Asked, campaign_id: str) -> tuple[dict[str, Any], Model]:
    name = None if body.model and body.model.startswith(_THEIRS) else body.model
    model = request.choose_model(ctx, kind, body.provider, name)
    ours = {name: value for name in _OURS if (value := getattr(body, name)) is not None}
    return ours | {"campaign_id": campaign_id, "model": model.name}, model


def _shape(model: Model, size: str) -> dict[str, Any]:
    """Return the nearest aspect ratio that the model makes; nothing when the model has no choice."""
    known = model.inputs.get("aspect_ratio")
    shapes = [str(value) for value in known.values if ":" in str(value)] if known else []
    if size == "auto" or not shapes:
        return {}
    wanted = _ratio(size)
    return {"aspect_ratio": min(shapes, key=lambda shape: abs(math.log(_ratio(shape) / wanted)))}


def _shape_of_start(ctx: Context, model: Model, body: VideoBody) -> dict[str, Any]:
    """Return the aspect ratio of the start image, which a video without a picture gets.

    It is set here so that the answer can tell the size.
    """
    if body.aspect_ratio:
        return {}
    if not model.makes_start_image:
        return _shape(model, body.size) if body.size else {}
    shape = _shape(request.start_image_model(ctx, model), body.size) if body.size else {}
    usual = model.start_image_aspect_ratio
    return shape or ({"aspect_ratio": usual} if usual else {})


def _ratio(text: str) -> float:
    width, height = re.split("[:x]", text)
    return int(width) / int(height)


def _resolution(model: Model, size: str) -> dict[str, Any]:
    """Return the resolution nearest to the shorter side."""
    if size == "auto" or not model.sizes:
        return {}
    side = min(map(int, size.split("x")))
    return {"resolution": min(model.sizes, key=lambda name: abs((shorter_side(name) or 0) - side))}


def _nearest_length(model: Model, seconds: int) -> int:
    known = model.inputs.get("duration")
    return known.nearest(seconds) if known else seconds
