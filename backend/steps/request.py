"""Step 1: a request becomes a row, queued or waiting for its source."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from backend.context import Context
from backend.core.errors import InvalidInput, NotFound, OutOfSpace
from backend.core.generation import ACTIVE, COMPLETED, QUEUED, WAITING, Generation, Kind
from backend.core.models import Model
from backend.core.people import Asset, Caller, Campaign
from backend.core.requests import GenerationRequest
from backend.core.roles import Role, conflict
from backend.db import assets, balances, campaigns, dependencies, generations
from backend.db.connection import Tx
from backend.manage import access, backlog, quota, webhook_targets

_OPTIONS = ("aspect_ratio", "duration", "mode", "resolution", "negative_prompt", "seed")


async def ensure_room(ctx: Context) -> None:
    """Raise OutOfSpace while the disk is nearly full: what is accepted must be kept."""
    free = await ctx.free_bytes()
    if free is not None and free < ctx.settings.min_free_mb * 1_000_000:
        raise OutOfSpace(retry_after=60)


async def accept(tx: Tx, ctx: Context, caller: Caller, kind: Kind, wanted: GenerationRequest) -> list[Generation]:
    """The rows of one request: as many as `copies`. Raises NotFound, InvalidInput, TooManyRequests, BudgetExceeded,
    ClientFull.

    A video of a prompt alone gets a start image first, as a generation of its own that it waits for.
    """
    campaign = await access.campaign(tx, caller, wanted.campaign_id)
    if wanted.client_id not in (None, campaign.client_id):
        raise InvalidInput.of("client_id", "does not agree with the campaign and the key")
    model = choose_model(ctx, kind, wanted.provider, wanted.model)
    webhook_targets.check(ctx, wanted.webhook_url, "webhook_url")
    first = _row(ctx, caller, campaign, model, wanted)
    missing = await check_sources(tx, caller, campaign.client_id, model, first.source)
    starts = []
    if model.makes_start_image and not _images(first.source):
        starts = [_start_image(ctx, caller, campaign, model, wanted)]
        first = replace(first, source={"image_id": starts[0].id, **first.source})
        missing.append(starts[0].id)
    rows = [first] + [_copy(ctx, first) for _ in range((wanted.copies or 1) - 1)]
    await balances.admit(tx, campaign.client_id, campaign.id, sum(row.reserved_micros for row in starts + rows))
    await quota.admit(tx, ctx, campaign.client_id)
    await backlog.admit(tx, ctx, campaign.client_id, len(starts + rows))
    for start in starts:
        await generations.insert(tx, start)
    batch_id = ctx.new_id() if wanted.copies else None
    for row in rows:
        await keep(tx, replace(row, batch_id=batch_id), missing)
    return [replace(row, batch_id=batch_id, status=WAITING if missing else QUEUED) for row in rows]


def choose_model(ctx: Context, kind: Kind, provider: str | None, name: str | None) -> Model:
    """The model asked for, or the default one. Raises InvalidInput when it can't be used here."""
    return ctx.catalog.choose(kind, name, provider, ctx.offered)


def start_image_model(ctx: Context, model: Model) -> Model:
    """The model for the start image of a video of words alone, of the same provider if it has one. May be refused."""
    return ctx.catalog.default("image", model.provider) or choose_model(ctx, "image", None, None)


async def check_sources(tx: Tx, caller: Caller, client_id: str, model: Model, source: dict[str, Any]) -> list[str]:
    """The unfinished generations among the sources. Raises NotFound, InvalidInput for what can't be used."""
    _check_numbers(model, source)
    start, end = model.references.get(model.start) if model.start else None, model.references.get("last_frame")
    missing = await _check_one(tx, client_id, source, "", start)
    return missing + await _check_one(tx, client_id, source.get("end_image") or {}, "end_image.", end)


async def keep(tx: Tx, row: Generation, missing: list[str]) -> None:
    """Write the row and what it waits for."""
    await generations.insert(tx, replace(row, status=WAITING if missing else QUEUED))
    for source_id in missing:
        await dependencies.insert(tx, row.id, source_id)


def _start_image(
    ctx: Context, caller: Caller, campaign: Campaign, model: Model, wanted: GenerationRequest
) -> Generation:
    image_model = start_image_model(ctx, model)
    shape = wanted.aspect_ratio or model.start_image_aspect_ratio
    said = {"aspect_ratio": shape} if shape else {}
    for name, value in {**said, "prompt": wanted.prompt or image_model.fallback_prompt}.items():
        image_model.check(name, value)
    row = _blank(ctx, caller, campaign, image_model, wanted, {}, image_model.defaults | said)
    return replace(row, webhook_url=None)


def _row(ctx: Context, caller: Caller, campaign: Campaign, model: Model, wanted: GenerationRequest) -> Generation:
    source = wanted.sources
    if "frame" in source and "video_id" not in source and "asset_id" not in source:
        raise InvalidInput.of("frame", "is for a video")
    return _blank(ctx, caller, campaign, model, wanted, source, _params(model, wanted, source))


def _params(model: Model, wanted: GenerationRequest, source: dict[str, Any]) -> dict[str, Any]:
    """What was chosen, checked against the model; the resolution as the mode that makes it."""
    chosen = {name: value for name in _OPTIONS if (value := getattr(wanted, name, None)) is not None}
    resolution = chosen.get("resolution")
    if resolution is not None:
        implied = model.sizes.get(resolution)
        if implied is None:
            known = ", ".join(model.sizes) or "none"
            raise InvalidInput.of("resolution", f"{model.name} takes {known}")
        if any(chosen.setdefault(name, value) != value for name, value in implied.items()):
            raise InvalidInput.of("resolution", "does not go with the mode")
    makes_start_image = model.makes_start_image and not _images(source)
    for name, value in chosen.items():
        is_optional = name in ("seed", "resolution") and name not in model.inputs
        if not is_optional and not (name == "aspect_ratio" and makes_start_image):
            model.check(name, value)
    if wanted.prompt is not None:
        model.check("prompt", wanted.prompt)
    params = model.defaults | chosen
    _check_roles(model, source, params)
    return params


def _check_roles(model: Model, source: dict[str, Any], params: dict[str, Any]) -> None:
    given = model.given(source)
    if "last_frame" in given and "last_frame" not in model.references:
        raise InvalidInput.of("end_image", f"{model.name} takes none")
    if model.start in given and not _images(source) and not model.makes_start_image:
        raise InvalidInput.of("image_id", f"{model.name} starts from an image")
    if found := conflict(model.references, given, model.facts(params, source)):
        name, why = found
        if name not in given:
            raise InvalidInput.of("model", f"{model.name} needs a reference of the role {name}")
        raise InvalidInput.of(given[name], why)


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
        nonce=secrets.token_urlsafe(24),
        cost_estimated_micros=_cost_micros(model, params, source),
        created_at=now,
        due_at=now,
    )


def _cost_micros(model: Model, params: dict[str, Any], source: dict[str, Any]) -> int:
    """What it costs at most. Raises InvalidInput where no price is known: it could not be kept within a budget."""
    cost = model.cost_micros(params, source=source)
    if cost is None:
        raise InvalidInput.of("model", f"{model.name} has no known price for this")
    return cost


def _copy(ctx: Context, row: Generation) -> Generation:
    return replace(row, id=ctx.new_id(), nonce=secrets.token_urlsafe(24))


def _images(source: dict[str, Any]) -> int:
    return sum(name in source for name in ("asset_id", "image_id", "video_id"))


def _check_numbers(model: Model, source: dict[str, Any]) -> None:
    most = model.references[model.start].most if model.start else 0
    if most is not None and _images(source) > most:
        given = [name for name in ("asset_id", "image_id", "video_id") if name in source]
        raise InvalidInput.of(given[-1], f"{model.name} starts from at most {most} image{'s' * (most != 1)}")


def _check_fit(file: Asset | Generation, role: Role | None, field: str) -> None:
    """Refuse a picture the model does not take; of a video it gets a frame, which is a JPEG of ours."""
    if role is None or file.kind != "image":
        return
    if why := role.misfit(file.content_type or "", file.bytes or 0, (file.width, file.height)):
        raise InvalidInput.of(field, why)


async def _is_deleted(tx: Tx, row: Generation) -> bool:
    return await campaigns.get(tx, row.campaign_id) is None


async def _check_one(tx: Tx, client_id: str, source: dict[str, Any], path: str, role: Role | None) -> list[str]:
    missing = []
    if id := source.get("asset_id"):
        asset = await assets.get(tx, id)
        if asset is None or asset.client_id != client_id:
            raise NotFound("There is no such asset.", code="asset_not_found")
        if asset.kind == "audio":
            raise InvalidInput.of(f"{path}asset_id", "is a sound, not an image or a video")
        _check_fit(asset, role, f"{path}asset_id")
    for kind in ("image", "video"):
        if id := source.get(f"{kind}_id"):
            row = await generations.get(tx, id)
            if row is None or row.client_id != client_id or row.kind != kind or await _is_deleted(tx, row):
                raise NotFound(f"There is no such {kind}.", code=f"{kind}_not_found")
            if row.status in ACTIVE:
                missing.append(id)
            elif row.status != COMPLETED:
                raise InvalidInput.of(f"{path}{kind}_id", f"has no file: it is {row.status}", code="source_failed")
            else:
                _check_fit(row, role, f"{path}{kind}_id")
    return missing
