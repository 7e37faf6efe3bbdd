"""The parameters of the tools, with what a language model reads of each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

ID = r"^[0-9A-Za-z_-]{1,64}$"
Prompt = Annotated[str | None, Field(description="what to make, in plain words")]
CampaignId = Annotated[
    str | None,
    Field(pattern=ID, description="the campaign this is made for; needed unless the connection has one of its own"),
]
ImageId = Annotated[str | None, Field(description="a generated image to start from; it may be unfinished")]
AssetId = Annotated[str | None, Field(description="an uploaded file to start from")]
VideoId = Annotated[str | None, Field(description="a generated video to start from: one of its frames")]
Frame = Annotated[Literal["first", "last"] | None, Field(description="which frame of video_id; last unless said")]
Model = Annotated[str | None, Field(description="leave it out for the usual model")]
AspectRatio = Annotated[str | None, Field(description="such as 16:9, 9:16 or 1:1")]
Copies = Annotated[int | None, Field(ge=1, le=4, description="that many at once, each paid for")]
Seed = Annotated[int | None, Field(ge=0, le=2**31 - 1)]
Duration = Annotated[int | None, Field(ge=1, le=60, description="seconds")]
Once = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=255,
        description="a text of your own: the same call with the same text again gives what the first one made",
    ),
]
WaitS = Annotated[
    int,
    Field(
        ge=0,
        le=600,
        description="seconds to wait for the result, with progress; 0 only starts it. It goes on after that too",
    ),
]
Id = Annotated[str, Field(pattern=ID, description="the id of an image or video")]
Limit = Annotated[int, Field(ge=1, le=50)]
Cursor = Annotated[str | None, Field(description="next_cursor of the page before")]
Kind = Annotated[Literal["image", "video"] | None, Field(description="only these")]
