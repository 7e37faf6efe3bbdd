"""The assets and generations that a request starts from: whether the caller may use them, and the model can."""

from __future__ import annotations

from typing import Any

from backend.core.errors import InvalidInput, NotFound
from backend.core.generation import ACTIVE, COMPLETED, Generation
from backend.core.models import Model
from backend.core.people import Asset, Caller
from backend.core.roles import Role
from backend.db import assets, campaigns, generations
from backend.db.connection import Tx
from backend.steps.request.params import check_numbers


async def check(tx: Tx, caller: Caller, client_id: str, model: Model, source: dict[str, Any]) -> list[str]:
    """Return the unfinished generations among the sources: the row waits for them.

    Raises NotFound for what the client does not have, InvalidInput for what the model cannot use.
    """
    check_numbers(model, source)
    start, end = model.references.get(model.start) if model.start else None, model.references.get("last_frame")
    missing = await _check_one(tx, client_id, source, "", start)
    return missing + await _check_one(tx, client_id, source.get("end_image") or {}, "end_image.", end)


async def _check_one(tx: Tx, client_id: str, source: dict[str, Any], path: str, role: Role | None) -> list[str]:
    missing = []
    if id := source.get("asset_id"):
        asset = await assets.get(tx, id)
        if asset is None or asset.client_id != client_id:
            # The same answer for what another client has: nobody learns which ids exist.
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


def _check_fit(file: Asset | Generation, role: Role | None, field: str) -> None:
    """Refuse a picture that the model does not take. Of a video it gets a frame, which is a JPEG of ours and fits."""
    if role is None or file.kind != "image":
        return
    if why := role.misfit(file.content_type or "", file.bytes or 0, (file.width, file.height)):
        raise InvalidInput.of(field, why)


async def _is_deleted(tx: Tx, row: Generation) -> bool:
    return await campaigns.get(tx, row.campaign_id) is None
