"""What a client may ask for: the bodies of the generate routes. Every field is strict and has a bound."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _written(value: object) -> object:
    # Pydantic would take numbers too, and guess by their size whether they are seconds or milliseconds.
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        return value
    raise ValueError("must be a time such as 2026-11-21T10:00:00Z")


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written)]
Url = Annotated[str, StringConstraints(min_length=8, max_length=2048)]


class Strict(BaseModel):
    """A JSON body: no unknown fields, and "5" is not 5."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        """Take 7.0 as the whole number 7: JSON knows no difference, and some languages write it so."""
        return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


class Nothing(Strict):
    """The body of a POST whose path says everything: no body, or an object without fields."""


class ImageReference(Strict):
    """Exactly one of an asset, a generated image, or a generated video (one of its frames)."""

    asset_id: Id | None = None
    image_id: Id | None = None
    video_id: Id | None = None
    frame: Literal["first", "last"] | None = Field(None, description="of a video: its last frame unless said otherwise")

    @model_validator(mode="after")
    def _exactly_one(self) -> ImageReference:
        if sum(one is not None for one in (self.asset_id, self.image_id, self.video_id)) != 1:
            raise ValueError("give exactly one of asset_id, image_id, video_id")
        return self


class GenerationRequest(Strict):
    """What requests for images and for videos have in common."""

    campaign_id: Id = Field(description="the campaign this is made for")
    client_id: Id | None = Field(None, description="must agree with the key")
    prompt: Text | None = Field(None, description="what to make")
    asset_id: Id | None = Field(None, description="an uploaded file to start from")
    image_id: Id | None = Field(None, description="a generated image to start from; it may be unfinished")
    video_id: Id | None = Field(None, description="a generated video to start from: one of its frames")
    frame: Literal["first", "last"] | None = Field(None, description="which frame of the video; last unless said")
    provider: ShortText | None = None
    model: ShortText | None = None
    aspect_ratio: Annotated[str, StringConstraints(pattern=r"^(\d{1,2}:\d{1,2}|match_input_image)$")] | None = None
    copies: Annotated[int, Field(ge=1, le=4)] | None = Field(
        None, description="that many generations; the answer is a list"
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="kept with the generation; sent to models that take one"
    )
    webhook_url: Url | None = Field(None, description="told of this generation's end")
    metadata: dict[str, str] = Field(default_factory=dict, description="yours, returned as it is")

    @field_validator("metadata")
    @classmethod
    def _bounded(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > 50 or any(len(key) > 100 or len(text) > 1000 for key, text in value.items()):
            raise ValueError("at most 50 entries, names of 100 and values of 1,000 characters")
        return value

    @model_validator(mode="after")
    def _something_to_go_on(self) -> GenerationRequest:
        if not any((self.prompt, self.asset_id, self.image_id, self.video_id)):
            raise ValueError("give at least one of prompt, asset_id, image_id, video_id")
        return self

    @property
    def sources(self) -> dict[str, Any]:
        """Return the references as the generation keeps them."""
        names = ("asset_id", "image_id", "video_id", "frame")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class ImageRequest(GenerationRequest):
    """The body of POST /api/v2/generate/image."""


class VideoRequest(GenerationRequest):
    """The body of POST /api/v2/generate/video."""

    duration: Annotated[int, Field(ge=1, le=60)] | None = Field(None, description="seconds")
    mode: ShortText | None = None
    resolution: ShortText | None = None
    negative_prompt: Text | None = None
    end_image: ImageReference | None = Field(None, description="what the video ends on")

    @property
    def sources(self) -> dict[str, Any]:
        end = {"end_image": self.end_image.model_dump(exclude_none=True)} if self.end_image else {}
        return super().sources | end
