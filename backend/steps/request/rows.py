"""The rows that a request becomes, before anything is written."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from backend.context import Context
from backend.core.errors import InvalidInput
from backend.core.generation import QUEUED, Generation, Kind
from backend.core.models import Model
from backend.core.people import Caller, Campaign
from backend.core.requests import GenerationRequest
from backend.steps.request.params import checked


def choose_model(ctx: Context, kind: Kind, provider: str | None, name: str | None) -> Model:
    """Return the model that is asked for, or the default one. Raises InvalidInput when it cannot be used here."""
    return ctx.catalog.choose(kind, name, provider, ctx.offered)


def start_image_model(ctx: Context, model: Model) -> Model:
    """Return the model for the start image of a video of words alone: of the same provider if it has one.

    Raises InvalidInput when no model can make it.
    """
    return ctx.catalog.default("image", model.provider) or choose_model(ctx, "image", None, None)


def row_of(ctx: Context, caller: Caller, campaign: Campaign, model: Model, wanted: GenerationRequest) -> Generation:
    """Return the row of a request. Raises InvalidInput for what its model does not take."""
    source = wanted.sources
    if "frame" in source and "video_id" not in source and "asset_id" not in source:
        raise InvalidInput.of("frame", "is for a video")
    return _blank(ctx, caller, campaign, model, wanted, source, checked(model, wanted, source))


def start_image(
    ctx: Context, caller: Caller, campaign: Campaign, model: Model, wanted: GenerationRequest
) -> Generation:
    """Return the row of the image that a video of words alone starts from. Raises InvalidInput."""
    image_model = start_image_model(ctx, model)
    shape = wanted.aspect_ratio or model.start_image_aspect_ratio
    said = {"aspect_ratio": shape} if shape else {}
    for name, value in {**said, "prompt": wanted.prompt or image_model.fallback_prompt}.items():
        image_model.check(name, value)
    row = _blank(ctx, caller, campaign, image_model, wanted, {}, image_model.defaults | said)
    return replace(row, webhook_url=None)  # the client asked for one video, and is told of that alone


def copy_of(ctx: Context, row: Generation) -> Generation:
    """Return another row of the same request. Its nonce is its own: it tells whose webhook it is."""
    return replace(row, id=ctx.new_id(), nonce=secrets.token_urlsafe(24))


def _blank(
    ctx: Context,
    caller: Caller,
    campaign: Campaign,
    model: Model,
    wanted: GenerationRequest,
    source: dict[str, Any],
    params: dict[str, Any],
) -> Generation:
    now = ctx.now()
    return Generation(
        id=ctx.new_id(),
        kind=model.kind,
        status=QUEUED,
        client_id=campaign.client_id,
        campaign_id=campaign.id,
        key_id=caller.key_id,
        provider=model.provider,
        model=model.name,
        prompt=wanted.prompt,
        source=source,
        params=params,
        metadata=wanted.metadata,
        webhook_url=wanted.webhook_url,
        nonce=secrets.token_urlsafe(24),  # in the webhook's path: it proves of which row a provider speaks
        cost_estimated_micros=_cost_micros(model, params, source),
        created_at=now,
        due_at=now,
    )


def _cost_micros(model: Model, params: dict[str, Any], source: dict[str, Any]) -> int:
    """Return what it costs at most, in millionths of a dollar.

    Raises InvalidInput where no price is known: counted as nothing it would pass every budget.
    """
    cost = model.cost_micros(params, source=source)
    if cost is None:
        raise InvalidInput.of("model", f"{model.name} has no known price for this")
    return cost
